//! Every order of a few events, compared with a model that knows what is true by the order alone.

use std::time::Duration;

use crate::launcher::JobState;
use crate::service::answers::{CancelAnswer, PollAnswer};

use super::super::fake_launcher::{Gate, Stage};
use super::{JOB, Owed, Race, is_cancelled, is_pending, says_it_failed, says_the_launch_failed};

/// One step of an order. A submission comes first in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The start goes through.
    Starts,
    /// The launch returns with an id.
    Launches,
    /// The launch fails.
    Fails,
    /// `cancel_job` is called.
    Cancel,
    /// One more of the launcher's cancels will fail.
    CancelFails,
    /// `poll_status` is called.
    Poll,
    /// The server dies, and the next takes up what it left.
    Dies,
}

/// What is true of the job, by the order alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    /// Set going by nobody yet; the server that wanted to may still.
    Starting,
    /// The server that wanted to start it is dead.
    NeverStarted,
    Launching,
    Running,
    LaunchFailed,
    Cancelled,
}

struct Model {
    truth: Truth,
    /// A cancel was asked for while the launch was under way, so it must be carried out.
    cancel_is_due: bool,
}

impl Model {
    fn follow(&mut self, step: Step, cancels_to_fail: usize) {
        self.truth = match (step, self.truth) {
            (Step::Starts, Truth::Starting) => Truth::Launching,
            (Step::Launches, Truth::Launching) => Truth::Running,
            (Step::Fails, Truth::Launching) => Truth::LaunchFailed,
            (Step::Dies, Truth::Starting) => Truth::NeverStarted,
            (Step::Cancel, Truth::Starting | Truth::Launching) => {
                self.cancel_is_due = true;
                self.truth
            }
            (Step::Cancel, Truth::Running) if !self.cancel_is_due && cancels_to_fail == 0 => {
                Truth::Cancelled
            }
            (Step::Cancel, Truth::NeverStarted) if cancels_to_fail == 0 => Truth::Cancelled,
            (_, truth) => truth,
        };
    }

    /// How the job ends when every gate is opened and no order goes on.
    fn end(self) -> Truth {
        let launched = match self.truth {
            Truth::Starting | Truth::Launching => Truth::Running,
            truth => truth,
        };
        match launched {
            Truth::Running if self.cancel_is_due => Truth::Cancelled,
            truth => truth,
        }
    }
}

/// Whether a cancel was answered with the truth of that instant. `due` is whether it must still be carried out.
fn check_cancel(answer: &CancelAnswer, stage: Option<Stage>, due: bool, order: &str) {
    let said = answer.error.as_deref().unwrap_or_default();
    let is_true = match (answer.success, answer.is_done) {
        (true, true) => stage == Some(Stage::Cancelled) && is_cancelled(answer),
        (true, false) => is_pending(answer) && due,
        (false, true) => match stage {
            Some(Stage::LaunchFailed) => says_the_launch_failed(answer),
            Some(Stage::Cancelled) => answer.state == JobState::Cancelled,
            // Its launch was never set going.
            None => answer.state == JobState::Failed && said.contains("never set going"),
            _ => false,
        },
        (false, false) => says_it_failed(answer),
    };
    assert!(is_true, "{order}: {stage:?}, {due}, {answer:?}");
}

fn check_poll(answer: &PollAnswer, stage: Option<Stage>, order: &str) {
    let (state, is_done) = match stage {
        Some(Stage::Launching) => (JobState::Pending, false),
        Some(Stage::Running) => (JobState::Running, false),
        Some(Stage::LaunchFailed) => (JobState::Failed, true),
        Some(Stage::Cancelled) => (JobState::Cancelled, true),
        Some(Stage::Succeeded | Stage::ClusterStays) => (JobState::Succeeded, true),
        None if answer.is_done => (JobState::Unknown, true),
        None => (JobState::Pending, false),
    };
    assert!(answer.success, "{order}: {answer:?}");
    assert_eq!((answer.state, answer.is_done), (state, is_done), "{order}");
}

/// Follows one order, letting `pace` pass after each step, then lets everything go on and compares with the model.
fn follow(steps: &[Step], pace: Duration) {
    let order = format!("{steps:?} every {pace:?}");
    let mut race = Race::new();
    let waits_to_start = steps.contains(&Step::Starts);
    if waits_to_start {
        race.cloud.close(Gate::Start);
    }
    let mut model = Model {
        truth: if waits_to_start {
            Truth::Starting
        } else {
            Truth::Launching
        },
        cancel_is_due: false,
    };
    race.submit();
    let mut cancels: Vec<(Owed<CancelAnswer>, bool)> = Vec::new();
    let mut polls = Vec::new();
    for step in steps {
        model.follow(*step, race.cloud.cancels_to_fail());
        match step {
            Step::Starts => race.cloud.open(Gate::Start),
            Step::Launches => race.cloud.open(Gate::Launch),
            Step::Fails => {
                race.cloud.fail_launches(true);
                race.cloud.open(Gate::Launch);
            }
            Step::Cancel => cancels.push((race.cancel(), model.cancel_is_due)),
            Step::CancelFails => race.cloud.fail_one_more_cancel(),
            Step::Poll => polls.push(race.poll()),
            Step::Dies => {
                race.restart();
            }
        }
        race.server.pass(pace);
    }
    race.end();
    // A look more, for a cancel that has used up its retries.
    race.polled();
    race.end();
    for (cancel, due) in cancels {
        match race.server.runtime.block_on(cancel) {
            Ok((answer, stage)) => check_cancel(&answer, stage, due, &order),
            // The server that owed it is dead.
            Err(error) => assert!(error.is_cancelled(), "{order}: {error}"),
        }
    }
    for poll in polls {
        match race.server.runtime.block_on(poll) {
            Ok((answer, stage)) => check_poll(&answer, stage, &order),
            Err(error) => assert!(error.is_cancelled(), "{order}: {error}"),
        }
    }
    let ended = model.end();
    let stage = match ended {
        Truth::Running => Some(Stage::Running),
        Truth::LaunchFailed => Some(Stage::LaunchFailed),
        Truth::Cancelled => Some(Stage::Cancelled),
        _ => None,
    };
    assert_eq!(race.cloud.stage(JOB), stage, "{order}");
    assert!(
        !race.dir().has_pending_cancel().unwrap(),
        "{order}: a cancel is still kept"
    );
    let has_id = race.cloud.starts(JOB) == 1 && ended != Truth::LaunchFailed;
    assert_eq!(!race.record().oumi_job_id.is_empty(), has_id, "{order}");
}

/// All orders of `length` steps after the submission, in which a launch starts at most once and ends at most once.
fn orders(length: usize, starts: bool) -> Vec<Vec<Step>> {
    let mut orders = vec![Vec::new()];
    for _ in 0..length {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<Step>| {
                let started = !starts || order.contains(&Step::Starts);
                let ended = order.contains(&Step::Launches) || order.contains(&Step::Fails);
                let mut next = vec![Step::Cancel, Step::CancelFails, Step::Poll, Step::Dies];
                if starts && !started {
                    next.push(Step::Starts);
                }
                if started && !ended {
                    next.extend([Step::Launches, Step::Fails]);
                }
                next.into_iter()
                    .map(move |step| [order.clone(), vec![step]].concat())
            })
            .collect();
    }
    orders
}

/// All orders of up to `length` steps, without those that are the same as another: until the first cancel, a failure of one may
/// as well be decided first, and without a cancel it is none.
fn orders_up_to(length: usize, starts: bool) -> Vec<Vec<Step>> {
    let all = (0..=length).flat_map(|length| orders(length, starts));
    all.filter(|order| {
        let cancel = order.iter().position(|step| *step == Step::Cancel);
        let before = order[..cancel.unwrap_or(order.len())].iter();
        let mut after_failures = before.skip_while(|step| **step == Step::CancelFails);
        let fails_later = after_failures.any(|step| *step == Step::CancelFails);
        !fails_later && (cancel.is_some() || !order.contains(&Step::CancelFails))
    })
    .collect()
}

/// Without time to wait for, a second look or death adds nothing to the first.
fn repeats(order: &[Step]) -> bool {
    let mut pairs = order.windows(2);
    pairs.any(|pair| pair[0] == pair[1] && matches!(pair[0], Step::Poll | Step::Dies))
}

fn follow_all(orders: Vec<Vec<Step>>, pace: Duration) {
    let half = orders.len() / 2;
    std::thread::scope(|scope| {
        for part in [&orders[..half], &orders[half..]] {
            scope.spawn(move || part.iter().for_each(|steps| follow(steps, pace)));
        }
    });
}

#[test]
fn every_order_of_six_events() {
    let mut all = orders_up_to(5, false);
    all.retain(|order| !repeats(order));
    assert_eq!(all.len(), 2146);
    follow_all(all, Duration::from_millis(1));
}

#[test]
fn every_order_with_retries_between() {
    follow_all(orders_up_to(4, false), Duration::from_millis(1500));
}

#[test]
fn every_order_with_a_death_before_start() {
    let mut all = orders_up_to(5, true);
    all.retain(|order| {
        // Where the start comes first, it is one of the orders above.
        let start = order.iter().position(|step| *step == Step::Starts);
        let mut before = order[..start.unwrap_or(0)].iter();
        before.any(|step| *step != Step::CancelFails) && !repeats(order)
    });
    assert_eq!(all.len(), 1070);
    follow_all(all, Duration::from_millis(1));
}
