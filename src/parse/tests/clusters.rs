//! The clusters that `sky status` shows.

use crate::parse::sky::clusters;

use super::captures::capture;

#[test]
fn clusters_are_read_as_sky_shows_them() {
    assert_eq!(clusters(&capture("sky/status-empty-json").out).unwrap(), []);
    let up = clusters(&capture("sky/status-up-json").out).unwrap();
    let cluster = &up[0];
    assert_eq!(
        (cluster.name.as_str(), cluster.status.as_str()),
        ("skyc1", "UP")
    );
    assert_eq!((cluster.autostop_minutes, cluster.to_down), (None, false));
    assert_eq!(cluster.cloud.as_deref(), Some("Slurm"));
    assert_eq!(cluster.region.as_deref(), Some("labslurm"));
    assert_eq!(cluster.nodes, Some(1));
    assert_eq!(cluster.resources.as_deref(), Some("1x(cpus=1, mem=1, ...)"));
    assert_eq!(
        (cluster.accelerators.as_deref(), cluster.hourly_price),
        (None, None)
    );
    assert_eq!(cluster.launched_at, Some(1795547289.0));
    let three = clusters(&capture("sky/status-three-json").out).unwrap();
    let statuses: Vec<_> = three
        .iter()
        .map(|cluster| cluster.status.as_str())
        .collect();
    assert_eq!(statuses, ["UP", "INIT", "STOPPED"]);
}

#[test]
fn a_price_is_taken_from_any_field_a_version_may_have_for_it() {
    for (field, price) in [
        (r#""price": 1.5"#, Some(1.5)),
        (r#""hourly_price": 2"#, Some(2.0)),
        (r#""cost_per_hour": "3.25""#, Some(3.25)),
        (r#""hourly_cost": "$ 4.00""#, Some(4.0)),
        (r#""price": null, "hourly_cost": 1"#, Some(1.0)),
        (r#""price": -1"#, None),
        (r#""price": "NaN""#, None),
        (r#""price": "free""#, None),
        (r#""other": 1"#, None),
    ] {
        let stdout = format!(
            r#"[{{"name": "c", {field}, "autostop": 60, "to_down": true,
            "accelerators": {{"A100": 8}}}}, {{"no": "name"}}]"#
        );
        let found = clusters(&stdout).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].hourly_price, price, "{field}");
        assert_eq!(
            (found[0].autostop_minutes, found[0].to_down),
            (Some(60), true)
        );
        assert_eq!(found[0].accelerators.as_deref(), Some(r#"{"A100":8}"#));
    }
}
