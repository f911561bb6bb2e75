//! Names of clusters that are taken and refused.

use crate::parse::{is_valid_cluster_name, is_valid_slurm_cluster_name};

#[test]
fn cluster_names_are_those_that_skypilot_and_oumi_take() {
    for name in [
        "a",
        "a1",
        "skyc1",
        "my-cluster_2.x",
        "A.b",
        &"a".repeat(500),
    ] {
        assert!(is_valid_cluster_name(name), "{name}");
    }
    for name in [
        "", "1a", "-a", "a-", "a.", "a_", "a b", "a*", "a\n", "ä", "aä", "a@b", "a/b", "sky[12]",
    ] {
        assert!(!is_valid_cluster_name(name), "{name:?}");
    }
    for name in ["root@localhost", "me.x@a-b.c_d", "1@2", "_u@h"] {
        assert!(is_valid_slurm_cluster_name(name), "{name}");
    }
    for name in [
        "",
        "@",
        "a@",
        "@b",
        "a@b@c",
        "a",
        "-oProxyCommand=x@h",
        "a@-b",
        "a b@c",
        "a@b\n",
        "a@b;c",
        "$a@b",
    ] {
        assert!(!is_valid_slurm_cluster_name(name), "{name:?}");
    }
}
