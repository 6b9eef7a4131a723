//! Short, seeded forms of what breaks a server. The long ones: `millpond-crash`.

use millpond_tests::crash::{Plan, torture};
use millpond_tests::faults::points;
use millpond_tests::random;

#[tokio::test(flavor = "multi_thread")]
async fn views_and_acknowledged_writes_survive_random_kills() {
    for seed in 1..3 {
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { seed, kills: 6, life_ms_max: 700, events: 20_000, plant: None };
        let outcome = torture(&plan, dir.path()).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(outcome.kills, plan.kills);
        assert!(outcome.acknowledged > 0);
        assert_eq!(outcome.unaligned > 0, plan.is_unaligned());
    }
}

/// A server with a bug does not come through.
#[tokio::test(flavor = "multi_thread")]
async fn random_kills_find_planted_bugs() {
    for bug in ["offsets-late", "answered-early", "state-omitted"] {
        let mut found = None;
        for seed in 1..5 {
            let dir = tempfile::tempdir().unwrap();
            let plan = Plan { seed, kills: 6, life_ms_max: 1500, events: 20_000, plant: Some(bug.to_string()) };
            found = torture(&plan, dir.path()).await.err();
            if let Some(finding) = &found {
                println!("{bug}: {finding}");
                break;
            }
        }
        assert!(found.is_some(), "{bug} was not noticed");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_of_any_statement_loses_and_doubles_nothing() {
    let found = points::table(1, 1, None).await;
    assert_eq!(found.total(), 0);
}
