//! What `sky cancel`, `sky stop` and `sky down` did.

use crate::parse::sky::{SkyCancel, SkyTeardown, sky_cancel, sky_teardown};

use super::captures::capture;

#[test]
fn a_cancel_says_what_it_did() {
    let cancel = |name: &str| sky_cancel(&capture(name).output());
    assert_eq!(
        cancel("sky/cancel-running"),
        SkyCancel::Cancelled(vec!["3".into()])
    );
    assert_eq!(cancel("sky/cancel-done"), SkyCancel::NoneCancelled);
    assert_eq!(cancel("sky/cancel-unknown"), SkyCancel::NoneCancelled);
    assert_eq!(cancel("sky/cancel-nocluster"), SkyCancel::ClusterGone);
    let SkyCancel::ClusterNotUp(reason) = cancel("sky/cancel-notup") else {
        panic!("{:?}", cancel("sky/cancel-notup"));
    };
    assert!(reason.contains("'stopped1' (status: STOPPED)"), "{reason}");
    assert_eq!(
        sky_cancel("Cancelled job ID(s): 3, 12\n"),
        SkyCancel::Cancelled(vec!["3".into(), "12".into()])
    );
    assert_eq!(
        sky_cancel(""),
        SkyCancel::Failed("it did not say why".into())
    );
    assert_eq!(
        sky_cancel("RuntimeError: SkyPilot API server process exited unexpectedly."),
        SkyCancel::Failed("RuntimeError: SkyPilot API server process exited unexpectedly.".into())
    );
}

#[test]
fn stopping_and_turning_down_say_what_they_did() {
    let teardown = |name: &str| sky_teardown(&capture(name).output());
    assert_eq!(teardown("sky/down"), SkyTeardown::Done);
    assert_eq!(teardown("sky/stop"), SkyTeardown::Done);
    assert_eq!(teardown("sky/down-nocluster"), SkyTeardown::ClusterNotFound);
    assert_eq!(teardown("sky/stop-nocluster"), SkyTeardown::ClusterNotFound);
    assert_eq!(
        teardown("sky/stop-unsupported"),
        SkyTeardown::CannotStop("Stopping is currently not supported for slurm.".into())
    );
    // From the source of SkyPilot: it was never seen to fail here.
    let failed = "\nTerminating cluster c...failed. \nReason: sky.exceptions.CommandError: it broke.\n\
                  Terminating 1 cluster                  0% -:--:--\nCluster(s) failed. See details above.\n";
    assert_eq!(
        sky_teardown(failed),
        SkyTeardown::Failed("CommandError: it broke.".into())
    );
}
