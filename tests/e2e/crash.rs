//! The short form of the crash test; the long one is the binary `millpond-crash`.

use millpond_tests::crash::{Plan, torture};

#[tokio::test(flavor = "multi_thread")]
async fn views_and_acknowledged_writes_survive_random_kills() {
    for (seed, workers) in [(1, "2"), (2, "1")] {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { seed, kills: 6, life_ms_max: 700, events: 20_000 };
        let outcome = torture(&plan, dir.path(), &["--parallelism", workers]).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(outcome.kills, plan.kills);
        assert!(outcome.acknowledged > 0);
    }
}
