//! Who is told when a resource changes: `resources/subscribe` in the versions before 2026-07-28, `subscriptions/listen` since.
//!
//! Each resource that somebody follows has a small task, which waits for the one watcher of its job or of the lists and says
//! that it has changed, not how. It has at most one notification under way: a client that reads slowly hears less often.
//! What is told is that the state, the status or the progress of a job is another, also of its log, which grows all the
//! time. A job that is done changes no more, and costs nothing more.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use rmcp::model::{ResourceUpdatedNotificationParam, SubscriptionFilter};
use rmcp::service::{Peer, SubscriptionContext, SubscriptionSink};
use rmcp::{ErrorData, RoleServer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::resources::{self, Address};
use crate::service::JobService;
use crate::service::requests::{JobQuery, StatusFilter};
use crate::sync::lock;

/// How many resources a client can follow at a time; a stream without any counts as one.
const MAX_FOLLOWED: usize = 64;

/// What the client of a server follows. Clones are the same.
#[derive(Debug, Clone)]
pub struct Subscriptions {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// By address, for the versions in which a session subscribes. They end with this.
    by_uri: Mutex<HashMap<String, JoinSet<()>>>,
    /// Tells the session of new jobs, once it is initialized.
    session: Mutex<JoinSet<()>>,
    room: Arc<Semaphore>,
    ended: watch::Sender<bool>,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                by_uri: Mutex::default(),
                session: Mutex::default(),
                room: Arc::new(Semaphore::new(MAX_FOLLOWED)),
                ended: watch::Sender::default(),
            }),
        }
    }
}

impl Subscriptions {
    /// Ends all of them: the client is gone, or this server is about to be.
    pub fn end(&self) {
        self.inner.ended.send_replace(true);
        self.by_uri().clear();
        *lock(&self.inner.session) = JoinSet::new();
    }

    /// Follows a resource for a session, until it unsubscribes.
    pub(super) async fn subscribe(
        &self,
        service: JobService,
        uri: String,
        peer: Peer<RoleServer>,
    ) -> Result<(), ErrorData> {
        let address = resources::find(&service, &uri).await?;
        let mut by_uri = self.by_uri();
        // Those whose job is done.
        by_uri.retain(|_, following| following.try_join_next().is_none());
        if !by_uri.contains_key(&uri) {
            let room = self.room(1)?;
            let mut following = JoinSet::new();
            let listener = Listener::Session(peer);
            let target = uri.clone();
            following.spawn(async move {
                let _room = room;
                follow(&service, address, &target, &listener).await;
            });
            by_uri.insert(uri, following);
        }
        Ok(())
    }

    /// Follows it no more; that nobody did is no error.
    pub(super) fn unsubscribe(&self, uri: &str) {
        self.by_uri().remove(uri);
    }

    /// Tells a session when there are other jobs. A client that has none may say that it is initialized all the same.
    pub(super) fn session_began(&self, service: JobService, peer: Peer<RoleServer>) {
        if peer.peer_info().is_none() {
            return;
        }
        let mut telling = JoinSet::new();
        telling.spawn(async move {
            tell_of_new_jobs(&service, &Listener::Session(peer)).await;
        });
        *lock(&self.inner.session) = telling;
    }

    /// Follows what a stream was opened for, until the client or the server ends it.
    pub(super) async fn listen(
        &self,
        service: JobService,
        stream: SubscriptionContext,
    ) -> Result<(), ErrorData> {
        // The library grants what was asked for twice twice.
        let uris: BTreeSet<&String> = stream
            .accepted()
            .resource_subscriptions
            .iter()
            .flatten()
            .collect();
        let addresses: Vec<(String, Address)> = uris
            .into_iter()
            .filter_map(|uri| Some((uri.clone(), Address::parse(uri)?)))
            .collect();
        let _room = self.room(addresses.len().max(1))?;
        let mut following = JoinSet::new();
        for (uri, address) in addresses {
            let (service, listener) = (service.clone(), Listener::Stream(stream.sink().clone()));
            following.spawn(async move { follow(&service, address, &uri, &listener).await });
        }
        if stream.accepted().resources_list_changed == Some(true) {
            let listener = Listener::Stream(stream.sink().clone());
            following.spawn(async move { tell_of_new_jobs(&service, &listener).await });
        }
        let mut ended = self.inner.ended.subscribe();
        tokio::select! {
            () = stream.cancelled() => {}
            _ = ended.wait_for(|ended| *ended) => {}
        }
        Ok(())
    }

    fn by_uri(&self) -> MutexGuard<'_, HashMap<String, JoinSet<()>>> {
        lock(&self.inner.by_uri)
    }

    fn room(&self, wanted: usize) -> Result<OwnedSemaphorePermit, ErrorData> {
        let room = u32::try_from(wanted).ok().and_then(|wanted| {
            Arc::clone(&self.inner.room)
                .try_acquire_many_owned(wanted)
                .ok()
        });
        room.ok_or_else(|| {
            let error = format!(
                "at most {MAX_FOLLOWED} resources are followed at a time; end another subscription first"
            );
            ErrorData::invalid_request(error, None)
        })
    }
}

/// What of a stream's wishes is granted: the resources there can be, as many as can be followed, and whether there are others.
/// What else is asked for is for others to grant.
pub(super) fn granted(requested: &SubscriptionFilter) -> SubscriptionFilter {
    let mut granted = SubscriptionFilter::new();
    granted.resources_list_changed = requested.resources_list_changed;
    let mut seen = BTreeSet::new();
    let uris: Vec<String> = requested
        .resource_subscriptions
        .iter()
        .flatten()
        .filter(|uri| Address::parse(uri).is_some() && seen.insert(*uri))
        .take(MAX_FOLLOWED)
        .cloned()
        .collect();
    granted.resource_subscriptions = (!uris.is_empty()).then_some(uris);
    granted
}

/// Who is told.
enum Listener {
    Session(Peer<RoleServer>),
    Stream(SubscriptionSink),
}

impl Listener {
    /// Says that a resource has changed. False when nobody hears it.
    async fn updated(&self, uri: &str) -> bool {
        match self {
            Self::Session(peer) => {
                let uri = ResourceUpdatedNotificationParam::new(uri);
                peer.notify_resource_updated(uri).await.is_ok()
            }
            Self::Stream(sink) => sink.notify_resource_updated(uri).await.is_ok(),
        }
    }

    /// Says that there are other resources. False when nobody hears it.
    async fn list_changed(&self) -> bool {
        match self {
            Self::Session(peer) => peer.notify_resource_list_changed().await.is_ok(),
            Self::Stream(sink) => sink.notify_resource_list_changed().await.is_ok(),
        }
    }
}

/// Tells of each change of a resource, until nothing more can change or nobody hears it.
async fn follow(service: &JobService, address: Address, uri: &str, listener: &Listener) {
    let list = match address {
        Address::Running => StatusFilter::Running,
        Address::Completed => StatusFilter::Completed,
        Address::Job(job_id) | Address::Log(job_id) => {
            return follow_job(service, job_id, uri, listener).await;
        }
    };
    let mut watch = service.watch_list(list);
    while watch.changed().await && listener.updated(uri).await {}
}

async fn follow_job(service: &JobService, job_id: String, uri: &str, listener: &Listener) {
    let query = JobQuery {
        job_id,
        ..JobQuery::default()
    };
    let mut known = service.registry().known();
    let mut appeared = false;
    let mut watch = loop {
        match service.watch(&query).await {
            Ok(watch) => break watch,
            // There is no such job yet.
            Err(_) if known.changed().await.is_ok() => appeared = true,
            Err(_) => return,
        }
    };
    // What was missed before the watch began: that the job is there, or its end, after which nothing else would be told.
    if (appeared || watch.now().is_done) && !listener.updated(uri).await {
        return;
    }
    while watch.changed().await.is_some() && listener.updated(uri).await {}
}

async fn tell_of_new_jobs(service: &JobService, listener: &Listener) {
    let mut known = service.registry().known();
    while known.changed().await.is_ok() && listener.list_changed().await {}
}
