//! What the environment says: the template sets these variables.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What this function does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Orchestrator,
    Activity,
    Api,
}

/// The variables, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(crate) role: Role,
    pub(crate) table: String,
    pub(crate) bucket: String,
    pub(crate) run_queue_url: String,
    pub(crate) alarm_queue_url: String,
    pub(crate) alarm_queue_arn: String,
    pub(crate) task_queues: BTreeMap<String, String>,
    pub(crate) schedule_group: String,
    pub(crate) schedule_role_arn: String,
    pub(crate) longest_delay: Duration,
    pub(crate) schedule_lead: Duration,
    pub(crate) orchestrator_function: String,
    pub(crate) dead_letter_arns: Vec<String>,
    pub(crate) dead_letters_url: String,
    pub(crate) trusted_senders: Vec<String>,
    pub(crate) namespace: String,
    pub(crate) sweep_interval: Duration,
    pub(crate) retention: Duration,
    pub(crate) build: String,
}

/// A variable that is missing or makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} {problem}; the template in infra/sam sets it")]
pub(crate) struct InvalidSetting {
    name: &'static str,
    problem: String,
}

type Get<'a> = &'a dyn Fn(&str) -> Option<String>;

fn invalid(name: &'static str, problem: impl Into<String>) -> InvalidSetting {
    InvalidSetting { name, problem: problem.into() }
}

fn text(get: Get<'_>, name: &'static str) -> Result<String, InvalidSetting> {
    get(name).filter(|value| !value.is_empty()).ok_or_else(|| invalid(name, "is not set"))
}

fn text_or(get: Get<'_>, name: &'static str, default: &str) -> String {
    text(get, name).unwrap_or_else(|_| default.to_owned())
}

fn number(get: Get<'_>, name: &'static str, default: u64, within: RangeInclusive<u64>) -> Result<u64, InvalidSetting> {
    let Ok(value) = text(get, name) else { return Ok(default) };
    match value.parse() {
        Ok(number) if within.contains(&number) => Ok(number),
        _ => Err(invalid(name, format!("is {value:?}, not a number from {} to {}", within.start(), within.end()))),
    }
}

/// What stands between commas; nothing when it is not set.
fn list(get: Get<'_>, name: &'static str) -> Vec<String> {
    let text = text_or(get, name, "");
    text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

impl Settings {
    /// Whether this sender, as SQS names it, may tell runs anything: it is an account or a role that is named. When none
    /// is named, nobody is told apart.
    pub(crate) fn trusts(&self, sender: &str) -> bool {
        let id = sender.split(':').next().unwrap_or_default();
        self.trusted_senders.is_empty() || self.trusted_senders.iter().any(|trusted| trusted == id)
    }

    pub(crate) fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidSetting> {
        let get: Get<'_> = &get;
        let role = match text(get, "DORMOUSE_ROLE")?.as_str() {
            "orchestrator" => Role::Orchestrator,
            "activity" => Role::Activity,
            "api" => Role::Api,
            other => {
                return Err(invalid("DORMOUSE_ROLE", format!("is {other:?}, not orchestrator, activity or api")));
            }
        };
        let task_queues = serde_json::from_str(&text(get, "DORMOUSE_TASK_QUEUES")?)
            .map_err(|error| invalid("DORMOUSE_TASK_QUEUES", format!("is no JSON object of queue URLs ({error})")))?;
        Ok(Self {
            role,
            table: text(get, "DORMOUSE_TABLE")?,
            bucket: text(get, "DORMOUSE_BUCKET")?,
            run_queue_url: text(get, "DORMOUSE_RUN_QUEUE_URL")?,
            alarm_queue_url: text(get, "DORMOUSE_ALARM_QUEUE_URL")?,
            alarm_queue_arn: text(get, "DORMOUSE_ALARM_QUEUE_ARN")?,
            task_queues,
            schedule_group: text(get, "DORMOUSE_SCHEDULE_GROUP")?,
            schedule_role_arn: text(get, "DORMOUSE_SCHEDULE_ROLE_ARN")?,
            longest_delay: Duration::from_secs(number(get, "DORMOUSE_LONGEST_DELAY_SECONDS", 900, 1..=900)?),
            schedule_lead: Duration::from_secs(number(get, "DORMOUSE_SCHEDULE_LEAD_SECONDS", 120, 0..=600)?),
            orchestrator_function: text_or(get, "DORMOUSE_ORCHESTRATOR_FUNCTION", ""),
            dead_letter_arns: list(get, "DORMOUSE_DEAD_LETTER_ARNS"),
            dead_letters_url: text(get, "DORMOUSE_DEAD_LETTERS_URL")?,
            trusted_senders: list(get, "DORMOUSE_TRUSTED_SENDERS"),
            namespace: text_or(get, "DORMOUSE_NAMESPACE", "default"),
            sweep_interval: Duration::from_secs(number(get, "DORMOUSE_SWEEP_SECONDS", 60, 1..=86_400)?),
            retention: Duration::from_hours(24 * number(get, "DORMOUSE_RETENTION_DAYS", 30, 1..=36_500)?),
            build: text_or(get, "DORMOUSE_BUILD_ID", "unnamed"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            ("DORMOUSE_ROLE", "orchestrator"),
            ("DORMOUSE_TABLE", "t"),
            ("DORMOUSE_BUCKET", "b"),
            ("DORMOUSE_RUN_QUEUE_URL", "u"),
            ("DORMOUSE_ALARM_QUEUE_URL", "a"),
            ("DORMOUSE_ALARM_QUEUE_ARN", "arn"),
            ("DORMOUSE_TASK_QUEUES", r#"{"default":"d"}"#),
            ("DORMOUSE_SCHEDULE_GROUP", "g"),
            ("DORMOUSE_SCHEDULE_ROLE_ARN", "r"),
            ("DORMOUSE_DEAD_LETTERS_URL", "x"),
        ])
    }

    fn read(variables: &BTreeMap<&str, &str>) -> Result<Settings, InvalidSetting> {
        Settings::from_env(|name| variables.get(name).map(|value| (*value).to_owned()))
    }

    #[test]
    fn what_is_needed_is_asked_for_by_name() {
        assert_eq!(read(&variables()).unwrap().sweep_interval, Duration::from_mins(1));
        for name in variables().keys() {
            let mut without = variables();
            without.remove(name);
            assert!(read(&without).unwrap_err().to_string().starts_with(name));
        }
    }

    #[test]
    fn senders_are_told_apart_by_their_role() {
        let mut variables = variables();
        assert!(read(&variables).unwrap().trusts("AROAWORKER:activity"), "when none is named");
        variables.insert("DORMOUSE_TRUSTED_SENDERS", "123456789012, AROADECIDER");
        let settings = read(&variables).unwrap();
        for trusted in ["123456789012", "AROADECIDER:orchestrator", "AROADECIDER"] {
            assert!(settings.trusts(trusted), "{trusted}");
        }
        for other in ["", "AROAWORKER:orchestrator", "AROAWORKER:AROADECIDER", "AROADECIDERS:x", ":AROADECIDER"] {
            assert!(!settings.trusts(other), "{other}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let wrong = [
            ("DORMOUSE_ROLE", "boss"),
            ("DORMOUSE_TASK_QUEUES", "[]"),
            ("DORMOUSE_LONGEST_DELAY_SECONDS", "901"),
            ("DORMOUSE_LONGEST_DELAY_SECONDS", "0"),
            ("DORMOUSE_SWEEP_SECONDS", "often"),
        ];
        for (name, value) in wrong {
            let mut with = variables();
            with.insert(name, value);
            assert!(read(&with).unwrap_err().to_string().starts_with(name), "{name}={value}");
        }
    }
}
