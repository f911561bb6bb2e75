//! What following costs: one watcher a job however many follow it, one for the lists, and none when nobody does.

use std::time::Duration;

use oumi_mcp_server::policy::Policy;
use oumi_mcp_server::server::Server;
use oumi_mcp_server::server::stdio::Stdio;
use oumi_mcp_server::server::subscriptions::Subscriptions;
use oumi_mcp_server::service::requests::StatusFilter;
use rmcp::RoleServer;
use rmcp::service::{RunningService, serve_directly};
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf,
};
use tokio::time::{Instant, sleep};

use crate::fake_launcher::Call;
use crate::house::{House, house_of};
use crate::stateless;

fn house() -> House {
    house_of(&[&["gcp"]], Policy::default())
}

impl House {
    async fn run(&self, name: &str) {
        let answer = self.service.run(self.request(name, "gcp")).await;
        assert!(answer.success, "{answer:?}");
    }

    fn count(&self, is_it: impl Fn(&Call) -> bool) -> usize {
        self.world.calls().iter().filter(|call| is_it(call)).count()
    }

    fn lists(&self) -> usize {
        self.count(|call| matches!(call, Call::List(_)))
    }

    fn looks(&self) -> usize {
        self.count(|call| matches!(call, Call::Status(_)))
    }
}

/// A client over a pipe in memory.
struct Client {
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    input: WriteHalf<DuplexStream>,
    subscriptions: Subscriptions,
    serving: RunningService<RoleServer, Server>,
}

impl Client {
    fn of(house: &House) -> Self {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (reads, writes) = tokio::io::split(theirs);
        let (stdio, _) = Stdio::new(reads, writes, std::future::pending());
        let server = Server::new(house.service.clone());
        let subscriptions = server.subscriptions();
        let serving = serve_directly(server, stdio, None);
        let (output, input) = tokio::io::split(ours);
        Self {
            lines: BufReader::new(output).lines(),
            input,
            subscriptions,
            serving,
        }
    }

    async fn say(&mut self, message: Value) {
        let line = format!("{message}\n");
        self.input.write_all(line.as_bytes()).await.unwrap();
    }

    async fn ask(&mut self, method: &str, params: Value) {
        let params = stateless(params);
        self.say(json!({ "jsonrpc": "2.0", "id": method, "method": method, "params": params }))
            .await;
    }

    async fn listen(&mut self, id: u64, uris: &[&str]) {
        let params = stateless(json!({ "notifications": { "resourceSubscriptions": uris } }));
        self.say(json!({ "jsonrpc": "2.0", "id": id, "method": "subscriptions/listen", "params": params }))
            .await;
        assert_eq!(
            self.next().await["method"],
            "notifications/subscriptions/acknowledged"
        );
    }

    async fn give_up(&mut self, id: u64) {
        let params = json!({ "requestId": id });
        self.say(
            json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params }),
        )
        .await;
    }

    async fn next(&mut self) -> Value {
        let line = self.lines.next_line().await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn to_list_and_complete_asks_no_launcher() {
    let house = house();
    house.run("job").await;
    let calls = house.world.calls().len();
    let mut client = Client::of(&house);
    client.ask("resources/list", json!({})).await;
    assert_eq!(
        client.next().await["result"]["resources"][2]["uri"],
        "jobs://job"
    );
    let typed = json!({
        "ref": { "type": "ref/resource", "uri": "jobs://{job_id}" },
        "argument": { "name": "job_id", "value": "j" },
    });
    client.ask("completion/complete", typed).await;
    assert_eq!(
        client.next().await["result"]["completion"]["values"],
        json!(["job"])
    );
    assert_eq!(house.world.calls().len(), calls);
    assert_eq!(house.service.watchers(), 0);
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn ten_who_follow_a_job_cost_one_watcher_and_all_are_told() {
    let house = house();
    house.run("job").await;
    let mut client = Client::of(&house);
    for id in 0..10 {
        client.listen(id, &["jobs://job", "jobs://job/logs"]).await;
    }
    until("it is watched", || house.service.watchers() == 1).await;
    sleep(Duration::from_secs(5)).await;
    let before = house.looks();
    sleep(Duration::from_secs(60)).await;
    let looks = house.looks() - before;
    // The shortest time between two looks of one watcher is three seconds.
    assert!((1..=21).contains(&looks), "{looks} looks in a minute");
    assert_eq!(house.service.watchers(), 1);

    house.world.finish("job");
    let mut told = Vec::new();
    for _ in 0..20 {
        let update = client.next().await;
        assert_eq!(update["method"], "notifications/resources/updated");
        told.push((
            update["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"].as_u64(),
            update["params"]["uri"].as_str().unwrap().len(),
        ));
    }
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 20, "each stream of each resource, once");
    until("nobody watches it", || house.service.watchers() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_watcher_ends_with_the_last_who_follows() {
    let house = house();
    house.run("job").await;
    let mut client = Client::of(&house);
    client.listen(1, &["jobs://job"]).await;
    client.listen(2, &["jobs://job"]).await;
    until("it is watched", || house.service.watchers() == 1).await;
    client.give_up(1).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(house.service.watchers(), 1);
    client.give_up(2).await;
    until("nobody watches it", || house.service.watchers() == 0).await;
    let looks = house.looks();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(house.looks(), looks, "nobody asks any more");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_leaves_nothing_behind() {
    let house = house();
    house.run("job").await;
    let mut client = Client::of(&house);
    client
        .listen(1, &["jobs://job", "jobs://running", "jobs://completed"])
        .await;
    until("all is watched", || {
        house.service.watchers() == 1 && house.service.lists_are_watched()
    })
    .await;
    let Client {
        lines,
        input,
        subscriptions,
        serving,
    } = client;
    drop((lines, input));
    subscriptions.end();
    serving.waiting().await.unwrap();
    until("nobody watches anything", || {
        house.service.watchers() == 0 && !house.service.lists_are_watched()
    })
    .await;
    let calls = house.world.calls().len();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(house.world.calls().len(), calls);
}

#[tokio::test(start_paused = true)]
async fn the_lists_are_looked_at_only_while_somebody_listens_and_a_cloud_not_often() {
    let house = house();
    house.run("one").await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(house.lists(), 0, "nobody listens");

    let mut running = house.service.watch_list(StatusFilter::Running);
    let mut completed = house.service.watch_list(StatusFilter::Completed);
    assert!(running.changed().await, "what is found at first counts");
    let before = house.lists();
    sleep(Duration::from_secs(100)).await;
    let looks = house.lists() - before;
    assert!((4..=6).contains(&looks), "{looks} looks in 100 s");

    // A new job is seen at once, and only that.
    house.run("two").await;
    let begun = Instant::now();
    assert!(running.changed().await);
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    house.world.finish("one");
    assert!(completed.changed().await);
    assert!(running.changed().await);
    let is_quiet = tokio::time::timeout(Duration::from_secs(120), async {
        tokio::select! {
            changed = running.changed() => changed,
            changed = completed.changed() => changed,
        }
    });
    assert!(is_quiet.await.is_err(), "nothing has changed");
    let asked = house.world.calls().into_iter().rev();
    let asked = asked.filter_map(|call| match call {
        Call::List(ids) => Some(ids),
        _ => None,
    });
    assert_eq!(
        asked.take(1).collect::<Vec<_>>(),
        [["two"]],
        "what is done is not asked about"
    );

    drop(running);
    sleep(Duration::from_secs(30)).await;
    assert!(house.service.lists_are_watched());
    drop(completed);
    until("they are not watched", || {
        !house.service.lists_are_watched()
    })
    .await;
    let lists = house.lists();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(house.lists(), lists);
    // And again from the beginning.
    assert!(
        house
            .service
            .watch_list(StatusFilter::Completed)
            .changed()
            .await
    );
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_does_not_answer_changes_no_list() {
    let house = house();
    house.run("one").await;
    let mut running = house.service.watch_list(StatusFilter::Running);
    assert!(running.changed().await);
    let error = oumi_mcp_server::launcher::LauncherError::failed("no answer");
    house.world.fail_list(Some(error));
    let is_quiet = tokio::time::timeout(Duration::from_secs(120), running.changed());
    assert!(is_quiet.await.is_err());
    house.world.fail_list(None);
    let is_quiet = tokio::time::timeout(Duration::from_secs(120), running.changed());
    assert!(is_quiet.await.is_err());
    // A record that goes changes the list too.
    let records = house.service.registry().records().await.unwrap();
    house.service.registry().remove(records).await.unwrap();
    assert!(running.changed().await);
}
