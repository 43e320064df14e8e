//! Metrics that go with the log: a line in CloudWatch's embedded metric format, which is read out of it without a request
//! and without a right.

use dormouse_core::Timestamp;
use dormouse_engine::parking::StandingStill;
use serde_json::json;

/// Where the metrics stand in CloudWatch; the template's alarms name it.
const NAMESPACE: &str = "Dormouse";

/// How many runs of this function stand still, and for how many seconds the first of them has. `None` when there are
/// none: a metric costs something for each hour in which it is told, and its alarm takes silence for good news.
pub(crate) fn parked_runs(function: &str, parked: &StandingStill, now: Timestamp) -> Option<String> {
    let age = parked.since.map_or(0, |since| now.since(since).as_secs());
    (parked.count > 0).then(|| {
        let line = json!({
            "_aws": {
                "Timestamp": now.as_millis(),
                "CloudWatchMetrics": [{
                    "Namespace": NAMESPACE,
                    "Dimensions": [["FunctionName"]],
                    "Metrics": [
                        { "Name": "ParkedRuns", "Unit": "Count" },
                        { "Name": "OldestParkedRun", "Unit": "Seconds" },
                    ],
                }],
            },
            "FunctionName": function,
            "ParkedRuns": parked.count,
            "OldestParkedRun": age,
            "runs": parked.first.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        line.to_string()
    })
}

#[cfg(test)]
mod tests {
    use dormouse_core::WorkflowKey;

    use super::*;

    #[test]
    fn a_line_says_how_many_runs_stand_still_and_nothing_when_none_does() {
        let (now, run) = (Timestamp::from_millis(90_500), WorkflowKey::new("default", "w").unwrap().run(3));
        let parked = |count, since| StandingStill { count, since, first: vec![run.clone()] };
        assert_eq!(parked_runs("f", &StandingStill { count: 0, since: None, first: vec![] }, now), None);
        let line = parked_runs("f", &parked(2, Some(Timestamp::from_millis(30_000))), now).unwrap();
        let metrics =
            json!([{ "Name": "ParkedRuns", "Unit": "Count" }, { "Name": "OldestParkedRun", "Unit": "Seconds" }]);
        let directive = json!({ "Namespace": "Dormouse", "Dimensions": [["FunctionName"]], "Metrics": metrics });
        let expected = json!({
            "_aws": { "Timestamp": 90_500, "CloudWatchMetrics": [directive] },
            "FunctionName": "f", "ParkedRuns": 2, "OldestParkedRun": 60, "runs": ["default/w#3"],
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), expected);
        assert!(!line.contains('\n'), "one line of the log");
        for since in [None, Some(now), Some(now + std::time::Duration::from_secs(9))] {
            assert!(parked_runs("f", &parked(1, since), now).unwrap().contains("\"OldestParkedRun\":0"), "{since:?}");
        }
    }
}
