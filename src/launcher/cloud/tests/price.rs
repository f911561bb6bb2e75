use serde_json::{Value, json};

use super::*;
use crate::launcher::cloud::price::KEPT;
use crate::parse::sky;

/// A row as the CLI prints it.
fn row(machine: &str, count: f64, region: &str, price: Value, spot_price: Value) -> Value {
    json!({
        "cloud": "AWS", "instance_type": machine, "accelerator_count": count,
        "price": price, "spot_price": spot_price, "region": region,
    })
}

fn with_catalog() -> (TempDir, CloudLauncher) {
    launcher_on(catalog().into())
}

fn catalog() -> FakeCloud {
    let sized = |machine, cpus: u64, price: f64| {
        let mut row = row(machine, 1.0, "us-east-1", json!(price), Value::Null);
        row["cpu_count"] = cpus.into();
        row["memory"] = (4 * cpus).into();
        row
    };
    let mut aws = json!({
        "A100": [
            row("p4d", 8.0, "us-west-2", json!(32.0), json!(12.0)),
            row("p4d", 8.0, "us-east-1", json!(32.0), json!(11.0)),
            row("p4d", 8.0, "eu-west-1", json!(36.0), json!(9.0)),
            row("p4x", 8.0, "us-east-10", json!(20.0), json!("NaN")),
            row("nc", 8.0, "eastus", json!(50.0), json!("NaN")),
        ],
        "A100-80GB": [row("p4de", 8.0, "us-east-1", json!(1.0), json!(1.0))],
        "H100": [row("p5", 8.0, "us-east-1", json!(55.04), Value::Null)],
        "A10": [row("half", 0.5, "us-east-1", json!(1.5), json!("NaN"))],
        "T4": [row("g4", 1.0, "us-east-1", json!("NaN"), json!("NaN"))],
        "A10G": [sized("g5.4", 4, 1.0), sized("g5.16", 16, 1.5), sized("g5.32", 32, 2.5)],
        "tpu-v5": [row("", 1.0, "us-east-1", json!(9.0), Value::Null)],
    });
    for (name, rows) in aws.as_object_mut().unwrap() {
        let name = if name == "tpu-v5" { "tpu-v5-8" } else { name };
        let rows = rows.as_array_mut().unwrap().iter_mut();
        rows.for_each(|row| row["accelerator_name"] = name.into());
    }
    // As the API answers: rows are arrays.
    let lambda = json!({ "A100": [["Lambda", "gpu_8x_a100", "A100", 8.0, 124.0, 40.0, 1800.0, 10.32, null, "us-east-1"]] });
    FakeCloud {
        catalog: BTreeMap::from([("aws", aws), ("lambda", lambda)]),
        ..FakeCloud::default()
    }
}

#[tokio::test]
async fn a_config_has_the_price_of_what_it_asks_for() {
    let (_home, launcher) = with_catalog();
    let sized = |cpus: Value, memory: Value| json!({ "accelerators": "A10G", "cpus": cpus, "memory": memory });
    for (resources, low, high, note) in [
        (sized(Value::Null, Value::Null), 2.0, 2.0, "g5.4"),
        (sized(json!("5+"), Value::Null), 3.0, 3.0, "g5.16"),
        (sized(json!(32), Value::Null), 5.0, 5.0, "g5.32"),
        (sized(Value::Null, json!("100+")), 5.0, 5.0, "g5.32"),
        (sized(json!("8+"), json!("4x")), 3.0, 3.0, "g5.16"),
        (
            json!({ "accelerators": "tpu-v5-8" }),
            18.0,
            18.0,
            "tpu-v5-8",
        ),
        (
            json!({ "accelerators": "A100:8" }),
            40.0,
            40.0,
            "2 × p4x with A100:8, on demand, in us-east-10",
        ),
        (json!({ "accelerators": " a100 : 8 " }), 40.0, 40.0, "p4x"),
        (json!({ "accelerators": { "A100": 8 } }), 40.0, 40.0, "p4x"),
        (
            json!({ "accelerators": { "A100": "8" } }),
            40.0,
            40.0,
            "p4x",
        ),
        (
            json!({ "accelerators": ["H100:8", "A100:8"] }),
            40.0,
            110.08,
            "p5",
        ),
        (
            json!({ "accelerators": { "H100": 8, "A100": 8 } }),
            40.0,
            110.08,
            "p4x",
        ),
        (json!({ "accelerators": "A10:0.5" }), 3.0, 3.0, "half"),
        // The lowest spot price is where the price on demand is not the lowest.
        (
            json!({ "accelerators": "A100:8", "use_spot": "yes" }),
            18.0,
            18.0,
            "spot, in eu-west-1",
        ),
        // A region is no pattern: `us-east-1` is not `us-east-10`.
        (
            json!({ "accelerators": "A100:8", "region": "us-east-1" }),
            64.0,
            64.0,
            "in us-east-1;",
        ),
        (
            json!({ "accelerators": "A100:8", "zone": "us-east-1a" }),
            64.0,
            64.0,
            "in us-east-1;",
        ),
        (
            json!({ "accelerators": "A100:8", "zone": "us-east-1" }),
            64.0,
            64.0,
            "in us-east-1;",
        ),
        (
            json!({ "accelerators": "A100:8", "zone": "us-east-1-a" }),
            64.0,
            64.0,
            "in us-east-1;",
        ),
        (
            json!({ "accelerators": "A100:8", "zone": "eastus-1" }),
            100.0,
            100.0,
            "in eastus;",
        ),
        (
            json!({ "accelerators": "A100:8", "instance_type": "p4d" }),
            64.0,
            64.0,
            "p4d",
        ),
        (
            json!({ "accelerators": ["H100:8", "A100:8"] }),
            40.0,
            110.08,
            "p5",
        ),
    ] {
        let mut resources = resources;
        resources["cloud"] = "aws".into();
        let config = json!({ "resources": resources, "num_nodes": 2 });
        let offer = launcher.price_config(&config).await;
        assert_eq!(offer.hourly, Some((low, high)), "{config}: {offer:?}");
        assert!(offer.note.contains(note), "{config}: {offer:?}");
    }
}

#[tokio::test]
async fn an_unknown_price_has_its_reason() {
    let (_home, launcher) = with_catalog();
    for (resources, reason) in [
        (json!({ "cloud": "aws" }), "no accelerator is named"),
        (
            json!({ "cloud": "aws", "accelerators": null }),
            "no accelerator is named",
        ),
        (
            json!({ "cloud": "aws", "instance_type": "m5.large" }),
            "no accelerator is named",
        ),
        (
            json!({ "cloud": "aws", "accelerators": 4 }),
            "no accelerator is named",
        ),
        (
            json!({ "cloud": "aws", "accelerators": "4" }),
            "no accelerator is named",
        ),
        (
            json!({ "cloud": "aws", "accelerators": "--all" }),
            "no accelerator is named",
        ),
        (
            json!({ "cloud": "aws", "accelerators": [] }),
            "no accelerator is named",
        ),
        (
            json!({ "cloud": "aws", "accelerators": "A10G", "memory": "64GB+" }),
            "no price for A10G:1 with these cpus and memory on demand on aws",
        ),
        (
            json!({ "cloud": "aws", "accelerators": "V100:8" }),
            "no price for V100:8 on demand on aws",
        ),
        (
            json!({ "cloud": "aws", "accelerators": "A100:2" }),
            "no price for A100:2",
        ),
        (
            json!({ "cloud": "aws", "accelerators": "A100:8", "region": "us-east" }),
            "no price for A100:8 on demand on aws us-east",
        ),
        (
            json!({ "cloud": "aws", "accelerators": "T4" }),
            "no price for T4:1",
        ),
        (
            json!({ "cloud": "aws", "accelerators": "H100:8", "use_spot": true }),
            "no price for H100:8 spot on aws (on demand it is $55.04 an hour)",
        ),
        (
            json!({ "cloud": "k8s", "accelerators": "A100:8" }),
            "no list of prices for k8s",
        ),
        (
            json!({ "cloud": "azure", "accelerators": "A100:8" }),
            "Failed to fetch the catalog",
        ),
        (
            json!({ "cloud": "aws", "accelerators": ["A100:8", "V100:8"] }),
            "no price for V100:8",
        ),
    ] {
        let config = json!({ "resources": resources });
        let offer = launcher.price_config(&config).await;
        assert_eq!(offer.hourly, None, "{resources}: {offer:?}");
        assert!(offer.text().contains(reason), "{resources}: {offer:?}");
    }
    let config =
        json!({ "resources": { "cloud": "aws", "accelerators": "A100:8" }, "num_nodes": "many" });
    let offer = launcher.price_config(&config).await;
    assert!(offer.text().starts_with("not known"), "{offer:?}");
}

#[tokio::test]
async fn an_answer_is_kept_for_a_day() {
    let cloud = Arc::new(catalog());
    let (_home, launcher) = launcher_on(Arc::clone(&cloud));
    let config = json!({ "resources": { "cloud": "aws", "accelerators": "A100:8" } });
    let ask = async || {
        launcher.price_config(&config).await;
        cloud.catalog_queries.load(Ordering::Relaxed)
    };
    tokio::time::pause();
    assert_eq!((ask().await, ask().await), (1, 1));
    tokio::time::advance(KEPT + Duration::from_secs(1)).await;
    assert_eq!(ask().await, 2);
}

#[tokio::test]
async fn a_cluster_has_the_price_of_what_it_is() {
    let (_home, launcher) = with_catalog();
    for (row, price, note) in [
        (
            json!({ "resources_str_full": "2x[spot](gpus=A100:8, cpus=96, mem=1152, p4d, disk=256)", "nodes": 2,
                    "cloud": "AWS", "region": "eu-west-1" }),
            Some(18.0),
            "cluster c is UP and does not stop by itself: 2 × p4d with A100:8, spot, in eu-west-1",
        ),
        (
            json!({ "accelerators": "{'A100': 8}", "cloud": "AWS", "region": "us-west-2" }),
            Some(32.0),
            "1 × p4d",
        ),
        (
            json!({ "accelerators": null, "cloud": "AWS" }),
            None,
            "no accelerator is named",
        ),
        (
            json!({ "accelerators": "{'A100': 8}", "cloud": "Kubernetes" }),
            None,
            "no list of prices for k8s",
        ),
        (
            json!({ "accelerators": null, "hourly_price": 3.5 }),
            Some(3.5),
            "SkyPilot reports it",
        ),
    ] {
        let mut row = row;
        row["name"] = "c".into();
        row["status"] = "UP".into();
        let list = sky::clusters(&json!([row]).to_string()).unwrap();
        let offer = launcher.describe(&list[0]).await.offer;
        assert_eq!(offer.hourly.map(|(low, _)| low), price, "{row}: {offer:?}");
        assert!(offer.note.contains(note), "{row}: {offer:?}");
    }
}
