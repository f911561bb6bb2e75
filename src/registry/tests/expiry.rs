//! Which records are let go, and when.

use crate::registry::{JobRecord, KEEP_RECORDS, expired};
use chrono::{DateTime, TimeDelta, Utc};

use super::home::record;

fn at(now: DateTime<Utc>, job_id: &str, age: TimeDelta) -> JobRecord {
    JobRecord {
        submit_time: (now - age).to_rfc3339(),
        ..record(job_id)
    }
}

#[test]
fn old_and_undated_records_expire() {
    let now = Utc::now();
    let limit = TimeDelta::days(7);
    let mut records = vec![
        at(now, "new", TimeDelta::zero()),
        at(now, "almost", limit - TimeDelta::seconds(1)),
        at(now, "just", limit),
        at(now, "old", limit + TimeDelta::seconds(1)),
        at(now, "older", limit * 50),
        at(now, "future", -limit),
    ];
    for text in ["", "yesterday", "0000-00-00T00:00:00Z"] {
        records.push(JobRecord {
            submit_time: text.to_owned(),
            ..record(&format!("unreadable {text}"))
        });
    }
    let mut gone: Vec<&str> = expired(&records, now - TimeDelta::days(7))
        .into_iter()
        .map(|record| record.job_id.as_str())
        .collect();
    gone.sort_unstable();
    let unreadable = [
        "unreadable ",
        "unreadable 0000-00-00T00:00:00Z",
        "unreadable yesterday",
    ];
    assert_eq!(gone, [vec!["old", "older"], unreadable.to_vec()].concat());
}

#[test]
fn the_oldest_beyond_the_cap_expire() {
    let now = Utc::now();
    let of = |count: usize| -> Vec<JobRecord> {
        // Not in the order of their age.
        let ages = (0..count).map(|number| (number * 37) % count);
        ages.map(|age| {
            let minutes = i64::try_from(age).unwrap();
            at(now, &format!("{age:03}"), TimeDelta::minutes(minutes))
        })
        .collect()
    };
    assert!(expired(&of(KEEP_RECORDS), now - TimeDelta::days(7)).is_empty());
    let records = of(KEEP_RECORDS + 5);
    let mut gone: Vec<&str> = expired(&records, now - TimeDelta::days(7))
        .into_iter()
        .map(|record| record.job_id.as_str())
        .collect();
    gone.sort_unstable();
    assert_eq!(gone, ["200", "201", "202", "203", "204"]);
}
