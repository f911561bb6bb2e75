//! What SkyPilot is asked: its API server where that is up, else `sky`.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::Question;
use super::{SkyPilot, TIMEOUT, call, failed, unreadable};
use crate::error::JobError;
use crate::parse::sky::{self, ClusterList, Queue, QueueFailure};
use crate::process::runner::{CliCall, Output, QueryResult};

/// The limit of clusters whose queues are asked for at once.
const MAX_QUEUES: usize = 16;

impl SkyPilot {
    /// Asks the API server what `call` asks, or runs the program where the server is not up or its answer cannot be used, or there
    /// is no question for it.
    pub(super) async fn query(
        &self,
        call: &CliCall,
        question: Option<Question>,
        deadline: Option<Instant>,
    ) -> QueryResult {
        if let Some(question) = question
            && let Some(output) = self.ask(call, question, deadline).await?
        {
            return Ok(output);
        }
        self.cli.query(call, deadline).await
    }

    /// Asks the API server. `None` where the program must be asked.
    pub(super) async fn ask(
        &self,
        call: &CliCall,
        question: Question,
        deadline: Option<Instant>,
    ) -> Result<Option<Arc<Output>>, JobError> {
        let Some(server) = self.api.server().await else {
            return Ok(None);
        };
        let mut call = call.clone();
        call.over_http = true;
        let request = Box::pin(server.answer(call.clone(), question));
        let output = self.cli.share(&call, Some(request), deadline).await?;
        if output.code.is_some() || output.timed_out {
            return Ok(Some(output));
        }
        self.api.forget().await;
        Ok(None)
    }

    /// Asks the API server for the queue of one cluster. `None` where the program must be asked.
    async fn cluster_queue(
        &self,
        cluster: &str,
        deadline: Option<Instant>,
    ) -> Result<Option<Queue>, JobError> {
        let call = call(&["queue", cluster, "-o", "json"], TIMEOUT)?;
        let question = Question {
            path: "/queue",
            body: json!({ "cluster_name": cluster, "skip_finished": false, "all_users": false }),
        };
        let output = self.ask(&call, question, deadline).await?;
        let Some(output) = output else {
            return Ok(None);
        };
        if output.code != Some(0) {
            return Ok(Some(Queue::of_failure(cluster, &output.stderr)));
        }
        let queue = sky::cluster_queue(cluster, &output.stdout);
        if queue.is_err() {
            warn_unreadable(&call);
        }
        Ok(queue.ok())
    }

    /// Runs `sky queue` for these clusters, or for all.
    async fn run_queue(
        &self,
        clusters: &BTreeSet<String>,
        deadline: Option<Instant>,
    ) -> Result<Queue, JobError> {
        let mut arguments = vec!["queue"];
        arguments.extend(clusters.iter().map(String::as_str));
        arguments.extend(["-o", "json"]);
        let output = self.cli.query(&call(&arguments, TIMEOUT)?, deadline).await;
        let output = output.map_err(JobError::unavailable)?;
        let read = sky::queue(&output.stdout);
        let mut queue = read.map_err(|error| unreadable("sky queue", &error, &output))?;
        if output.code != Some(0) {
            // What it did print counts; its silence does not.
            for cluster in clusters
                .iter()
                .filter(|name| !queue.jobs.contains_key(*name))
            {
                let reason = QueueFailure::Other(failed("sky queue", &output).to_string());
                queue.unanswered.entry(cluster.clone()).or_insert(reason);
            }
        }
        Ok(queue)
    }

    /// Reads the queues of these clusters, or of all.
    pub(super) async fn queues(
        &self,
        clusters: &BTreeSet<String>,
        deadline: Option<Instant>,
    ) -> Result<Queue, JobError> {
        if self.api.server().await.is_none() {
            return self.run_queue(clusters, deadline).await;
        }
        let mut clusters = clusters.clone();
        if clusters.is_empty() {
            let list = self.list_clusters(deadline).await?.clusters;
            clusters.extend(list.into_iter().map(|cluster| cluster.name));
        }
        let asked = stream::iter(clusters).map(async |cluster: String| {
            let queue = self.cluster_queue(&cluster, deadline).await;
            (cluster, queue)
        });
        let answers: Vec<_> = asked.buffer_unordered(MAX_QUEUES).collect().await;
        let (mut queue, mut unasked, mut errors) = (Queue::default(), BTreeSet::new(), Vec::new());
        for (cluster, answer) in answers {
            match answer {
                Ok(Some(part)) => queue.add(part),
                Ok(None) => drop(unasked.insert(cluster)),
                Err(error) => errors.push((cluster, error)),
            }
        }
        if !unasked.is_empty() {
            match self.run_queue(&unasked, deadline).await {
                Ok(part) => queue.add(part),
                Err(error) => errors.extend(unasked.into_iter().map(|name| (name, error.clone()))),
            }
        }
        match errors.first() {
            Some((_, error)) if queue == Queue::default() => Err(error.clone()),
            _ => {
                let failure =
                    |(name, error): (_, JobError)| (name, QueueFailure::Other(error.to_string()));
                queue.unanswered.extend(errors.into_iter().map(failure));
                Ok(queue)
            }
        }
    }

    pub(super) async fn list_clusters(
        &self,
        deadline: Option<Instant>,
    ) -> Result<ClusterList, JobError> {
        let question = Question {
            path: "/status",
            // A summary has no job configs, and no keys are asked for.
            body: json!({
                "cluster_names": Value::Null, "refresh": "NONE", "all_users": false,
                "summary_response": true, "include_handle": false, "include_credentials": false,
            }),
        };
        let call = call(&["status", "-o", "json"], TIMEOUT)?;
        let asked = self.ask(&call, question, deadline).await;
        if let Some(output) = asked.map_err(JobError::unavailable)? {
            let list = read_clusters(&output);
            if list.is_ok() || output.code != Some(0) {
                return list;
            }
            warn_unreadable(&call);
        }
        let output = self.cli.query(&call, deadline).await;
        read_clusters(&*output.map_err(JobError::unavailable)?)
    }
}

fn read_clusters(output: &Output) -> Result<ClusterList, JobError> {
    let list = sky::clusters(&output.stdout);
    let list = list.map_err(|error| unreadable("sky status", &error, output))?;
    match output.code {
        Some(0) => Ok(list),
        _ => Err(failed("sky status", output)),
    }
}

fn warn_unreadable(call: &CliCall) {
    let command = call.command_line();
    tracing::warn!(
        "SkyPilot's API server cannot answer `{command}`: its answer could not be read; the program is run"
    );
}
