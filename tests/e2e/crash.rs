//! The short form of the crash test; the long one is the binary `millpond-crash`.

use millpond_tests::crash::{Plan, torture};
use millpond_tests::random;

#[tokio::test(flavor = "multi_thread")]
async fn views_and_acknowledged_writes_survive_random_kills() {
    for (seed, workers) in [(1, "1"), (2, "2")] {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { seed, kills: 6, life_ms_max: 700, events: 20_000 };
        let outcome = torture(&plan, dir.path(), &["--parallelism", workers]).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(outcome.kills, plan.kills);
        assert!(outcome.acknowledged > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_views_equal_their_queries_through_random_histories() {
    for seed in 1..4 {
        let dir = tempfile::tempdir().unwrap();
        let plan = random::Plan { seed, views: 10, comparisons: 8 };
        let outcome = random::run_plan(&plan, dir.path()).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(outcome.comparisons > 40, "{outcome:?}");
    }
}
