//! The rules, one function for each part of the template. Each says what is wrong, and where.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// The longest that SQS keeps a message, in seconds.
const FOURTEEN_DAYS: u64 = 14 * 24 * 60 * 60;

/// What every function is told.
const ENVIRONMENT: &[&str] = &[
    "DORMOUSE_TABLE",
    "DORMOUSE_BUCKET",
    "DORMOUSE_RUN_QUEUE_URL",
    "DORMOUSE_ALARM_QUEUE_URL",
    "DORMOUSE_ALARM_QUEUE_ARN",
    "DORMOUSE_TASK_QUEUES",
    "DORMOUSE_SCHEDULE_GROUP",
    "DORMOUSE_SCHEDULE_ROLE_ARN",
    "DORMOUSE_LONGEST_DELAY_SECONDS",
    "DORMOUSE_SCHEDULE_LEAD_SECONDS",
    "DORMOUSE_DEAD_LETTER_ARNS",
    "DORMOUSE_DEAD_LETTERS_URL",
    "DORMOUSE_NAMESPACE",
    "DORMOUSE_SWEEP_SECONDS",
    "DORMOUSE_RETENTION_DAYS",
    "DORMOUSE_BUILD_ID",
];

/// What is wrong with a template; nothing, when it keeps every rule.
pub fn faults(root: &Value) -> Vec<String> {
    let mut template = Template { root, faults: Vec::new() };
    template.parameters();
    template.functions();
    template.concurrency();
    template.sources();
    template.queues();
    template.roles();
    template.activity_role();
    template.other_roles();
    template.senders();
    template.redrive();
    template.table();
    template.bucket();
    template.api();
    template.alarms();
    template.sweep();
    template.faults
}

struct Template<'a> {
    root: &'a Value,
    faults: Vec<String>,
}

/// One statement of a policy.
struct Statement<'a> {
    role: &'a str,
    actions: Vec<&'a str>,
    resources: Vec<&'a Value>,
    whole: &'a Value,
}

fn get_att(resource: &str, attribute: &str) -> Value {
    json!({ "Fn::GetAtt": [resource, attribute] })
}

fn reference(to: &str) -> Value {
    json!({ "Ref": to })
}

/// The resource whose attribute this is.
fn owner(value: &Value) -> &str {
    value["Fn::GetAtt"][0].as_str().or(value["Ref"].as_str()).unwrap_or_default()
}

fn many(value: &Value) -> Vec<&Value> {
    value.as_array().map_or_else(|| vec![value], |items| items.iter().collect())
}

/// What an `If` may come to, `AWS::NoValue` left out.
fn branches(value: &Value) -> Vec<&Value> {
    match value["Fn::If"].as_array() {
        Some(parts) => parts[1..].iter().flat_map(branches).collect(),
        None if *value == reference("AWS::NoValue") => Vec::new(),
        None => vec![value],
    }
}

impl<'a> Template<'a> {
    fn must(&mut self, holds: bool, rule: impl Into<String>) {
        if !holds {
            self.faults.push(rule.into());
        }
    }

    fn properties(&self, resource: &str) -> &'a Value {
        &self.root["Resources"][resource]["Properties"]
    }

    /// The logical ids of all resources of a type.
    fn all(&self, kind: &str) -> Vec<&'a str> {
        let resources = self.root["Resources"].as_object().unwrap();
        resources.iter().filter(|(_, resource)| resource["Type"] == kind).map(|(id, _)| id.as_str()).collect()
    }

    /// Every number that a value may come to: itself, or all that a mapping holds for it.
    fn numbers(&self, value: &Value) -> Vec<u64> {
        if let Some(number) = value.as_u64() {
            return vec![number];
        }
        let Some(mapping) = value["Fn::FindInMap"].as_array() else { return Vec::new() };
        let rows = self.root["Mappings"][mapping[0].as_str().unwrap()].as_object().unwrap().values();
        rows.filter_map(|row| row[mapping[2].as_str().unwrap()].as_u64()).collect()
    }

    fn parameters(&mut self) {
        for (name, parameter) in self.root["Parameters"].as_object().unwrap() {
            self.must(parameter["Description"].is_string(), format!("{name}: described"));
            let filled_in = matches!(name.as_str(), "CodeBucket" | "CodeKey" | "BuildId");
            self.must(
                filled_in != parameter["Default"].is_string() || parameter["Default"].is_u64(),
                format!("{name}: default"),
            );
        }
        let parameters = &self.root["Parameters"];
        self.must(parameters["DeletionProtection"]["Default"] == "true", "DeletionProtection is on");
        self.must(parameters["JwtIssuer"]["Default"] == "", "JwtIssuer: IAM unless said otherwise");
        let longest = &parameters["LongestDelaySeconds"];
        self.must(
            longest["MaxValue"] == 900 && longest["Default"] == 900,
            "LongestDelaySeconds: SQS takes 900 at most",
        );
    }

    fn functions(&mut self) {
        let globals = &self.root["Globals"]["Function"];
        self.must(globals["Runtime"] == "provided.al2023" && globals["Handler"] == "bootstrap", "runtime");
        for name in ENVIRONMENT {
            self.must(!globals["Environment"]["Variables"][name].is_null(), *name);
        }
        let letters = globals["Environment"]["Variables"]["DORMOUSE_DEAD_LETTER_ARNS"]["Fn::Sub"].as_str();
        let named: BTreeSet<_> = letters.unwrap_or_default().split(',').map(str::to_owned).collect();
        let dead = self.dead_letters().iter().map(|queue| format!("${{{queue}.Arn}}")).collect();
        self.must(named == dead, "DORMOUSE_DEAD_LETTER_ARNS names every dead-letter queue");

        let (mut tasks, mut roles) = (BTreeSet::new(), BTreeSet::new());
        let functions = self.all("AWS::Serverless::Function");
        self.must(self.all("AWS::Lambda::Function").is_empty(), "functions that no rule looks at");
        for function in &functions {
            let properties = self.properties(function);
            self.must(properties["RecursiveLoop"] == "Allow", format!("{function}: RecursiveLoop"));
            let role = owner(&properties["Role"]);
            self.must(roles.insert(role) && !role.is_empty(), format!("{function}: a role of its own"));
            self.must(
                tasks.insert(properties["Environment"]["Variables"]["DORMOUSE_ROLE"].clone().to_string()),
                "DORMOUSE_ROLE",
            );
            let log = owner(&properties["LoggingConfig"]["LogGroup"]);
            self.must(self.all("AWS::Logs::LogGroup").contains(&log), format!("{function}: log group"));
        }
        let expected = ["\"activity\"", "\"api\"", "\"orchestrator\""].map(str::to_owned);
        self.must(tasks == BTreeSet::from(expected), "DORMOUSE_ROLE");
        let api = &self.properties("Api")["Environment"]["Variables"]["DORMOUSE_ORCHESTRATOR_FUNCTION"];
        self.must(*api == reference("Orchestrator"), "DORMOUSE_ORCHESTRATOR_FUNCTION");
        self.must(self.properties("Api")["Timeout"].as_u64() < Some(30), "Api: answers before the gateway gives up");
        for log in self.all("AWS::Logs::LogGroup") {
            self.must(!self.properties(log)["RetentionInDays"].is_null(), format!("{log}: retention"));
        }
    }

    /// What is reserved for a function must suffice for all that may call it.
    fn concurrency(&mut self) {
        for function in self.all("AWS::Serverless::Function") {
            let reserved = branches(&self.properties(function)["ReservedConcurrentExecutions"]);
            let expected = json!({ "Fn::FindInMap": ["Scales", reference("Scale"), function] });
            self.must(reserved == [&expected], format!("{function}: concurrency can be limited"));
        }
        for (scale, row) in self.root["Mappings"]["Scales"].as_object().unwrap() {
            let at = |name: &str| row[name].as_u64().unwrap();
            // Two each for the dead-letter queues, one for the sweep, one at least for queries.
            self.must(at("Orchestrator") >= at("Runs") + at("Alarms") + 6, format!("{scale}: orchestrator"));
            self.must(at("Activity") >= at("Activities"), format!("{scale}: activity"));
            for name in ["Runs", "Alarms", "Activities"] {
                self.must((2..=1000).contains(&at(name)), format!("{scale}: {name}"));
            }
        }
    }

    fn sources(&mut self) {
        for source in self.all("AWS::Lambda::EventSourceMapping") {
            let properties = self.properties(source);
            let reports = properties["FunctionResponseTypes"] == json!(["ReportBatchItemFailures"]);
            self.must(reports, format!("{source}: ReportBatchItemFailures"));
            let concurrency = self.numbers(&properties["ScalingConfig"]["MaximumConcurrency"]);
            self.must(!concurrency.is_empty(), format!("{source}: MaximumConcurrency"));
            let batch = &properties["BatchSize"];
            let most = batch.as_u64().or(self.root["Parameters"][owner(batch)]["MaxValue"].as_u64());
            // Larger ones need a window, and FIFO queues know none.
            self.must(most.is_some_and(|most| most <= 10), format!("{source}: batch"));

            // Six times the longest that the function may take.
            let queue = self.properties(owner(&properties["EventSourceArn"]));
            let timeout = &self.properties(owner(&properties["FunctionName"]))["Timeout"];
            let rule = format!("{source}: visibility of six times the function's timeout");
            match owner(timeout) {
                "" => {
                    let visible = self.numbers(&queue["VisibilityTimeout"]);
                    let least = 6 * timeout.as_u64().unwrap();
                    self.must(!visible.is_empty() && visible.iter().all(|visible| *visible >= least), rule);
                }
                parameter => {
                    let mapping = queue["VisibilityTimeout"]["Fn::FindInMap"].as_array();
                    let same = mapping.is_some_and(|mapping| mapping[1] == reference(parameter));
                    self.must(same, rule.clone());
                    let rows =
                        mapping.map_or(&Value::Null, |mapping| &self.root["Mappings"][mapping[0].as_str().unwrap()]);
                    for allowed in self.root["Parameters"][parameter]["AllowedValues"].as_array().unwrap() {
                        let allowed = allowed.as_str().unwrap();
                        let visible = rows[allowed]["Visibility"].as_u64();
                        self.must(visible >= Some(6 * allowed.parse::<u64>().unwrap()), rule.clone());
                    }
                }
            }
        }
    }

    fn dead_letters(&self) -> BTreeSet<&'a str> {
        let targets = self.all("AWS::SQS::Queue").into_iter();
        let targets = targets.map(|queue| owner(&self.properties(queue)["RedrivePolicy"]["deadLetterTargetArn"]));
        targets.filter(|target| !target.is_empty()).collect()
    }

    fn queues(&mut self) {
        let dead = self.dead_letters();
        let sources = self.all("AWS::Lambda::EventSourceMapping");
        let heard: Vec<_> = sources.iter().map(|source| owner(&self.properties(source)["EventSourceArn"])).collect();
        for queue in self.all("AWS::SQS::Queue") {
            let properties = self.properties(queue);
            self.must(properties["MessageRetentionPeriod"] == FOURTEEN_DAYS, format!("{queue}: retention"));
            let encrypted = branches(&properties["SqsManagedSseEnabled"]) == [&json!(true)]
                && branches(&properties["KmsMasterKeyId"]) == [&reference("KeyArn")];
            self.must(encrypted, format!("{queue}: encryption"));
            // Consumers of the queues of other languages are not ours.
            let ours = self.root["Resources"][queue]["Condition"] != "UsePython";
            self.must(!ours || heard.contains(&queue), format!("{queue}: nobody listens"));
            if dead.contains(queue) {
                continue;
            }
            let redrive = &properties["RedrivePolicy"];
            self.must(redrive["maxReceiveCount"].as_u64() >= Some(20), format!("{queue}: maxReceiveCount"));
            let target = self.properties(owner(&redrive["deadLetterTargetArn"]));
            self.must(target["FifoQueue"] == properties["FifoQueue"], format!("{queue}: dead letters of its kind"));
        }
        self.must(self.properties("RunQueue")["FifoQueue"] == true, "RunQueue: FIFO");
        // Delays of single messages, which FIFO queues do not have.
        self.must(self.properties("AlarmQueue")["FifoQueue"].is_null(), "AlarmQueue: standard");
    }

    fn statements(&self, role: &'a str) -> Vec<Statement<'a>> {
        let policies = self.properties(role)["Policies"].as_array().unwrap().iter();
        let listed = policies.flat_map(|policy| policy["PolicyDocument"]["Statement"].as_array().unwrap());
        let statement = |whole: &'a Value| Statement {
            role,
            actions: many(&whole["Action"]).into_iter().map(|action| action.as_str().unwrap_or("*")).collect(),
            resources: many(&whole["Resource"]).into_iter().flat_map(branches).collect(),
            whole,
        };
        listed.flat_map(branches).map(statement).collect()
    }

    fn roles(&mut self) {
        self.must(self.all("AWS::IAM::Policy").is_empty(), "policies that no rule looks at");
        self.must(self.all("AWS::IAM::ManagedPolicy").is_empty(), "policies that no rule looks at");
        for role in self.all("AWS::IAM::Role") {
            self.must(self.properties(role)["ManagedPolicyArns"].is_null(), format!("{role}: policies of others"));
            for statement in self.statements(role) {
                self.must(statement.whole["Effect"] == "Allow", format!("{role}: only allows, so that it can be read"));
                for action in &statement.actions {
                    self.must(!action.contains('*'), format!("{role}: wildcard action"));
                }
                self.must(!statement.whole["Resource"].is_null(), format!("{role}: Resource"));
                for resource in &statement.resources {
                    self.must(!wild(resource), format!("{role}: wildcard resource {resource}"));
                }
            }
            let trust = &self.properties(role)["AssumeRolePolicyDocument"]["Statement"];
            for trusted in many(trust) {
                let service = trusted["Principal"]["Service"].as_str().unwrap_or_default();
                self.must(!service.is_empty() && service != "*", format!("{role}: who may take it"));
                let condition = &trusted["Condition"]["StringEquals"];
                let ours = condition["aws:SourceAccount"] == reference("AWS::AccountId")
                    && !condition["aws:SourceArn"].is_null();
                self.must(service != "scheduler.amazonaws.com" || ours, format!("{role}: whose schedules"));
            }
        }
    }

    /// Code of activities reaches attempts and its queue, never a history.
    fn activity_role(&mut self) {
        for statement in self.statements("ActivityRole") {
            let resources = || statement.resources.iter().copied();
            for action in &statement.actions {
                let (service, verb) = action.split_once(':').unwrap();
                let rule = format!("ActivityRole: {action}");
                match service {
                    "dynamodb" => {
                        self.must(["GetItem", "PutItem", "UpdateItem"].contains(&verb), rule);
                        let keys = json!({
                            "ForAllValues:StringLike": { "dynamodb:LeadingKeys": ["attempt#*"] },
                            "Null": { "dynamodb:LeadingKeys": "false" },
                        });
                        self.must(statement.whole["Condition"] == keys, "ActivityRole: LeadingKeys");
                        self.must(resources().eq([&get_att("Table", "Arn")]), "ActivityRole: the table alone");
                    }
                    "s3" => {
                        self.must(["GetObject", "PutObject"].contains(&verb), rule);
                        let messages = json!({ "Fn::Sub": "${Bucket.Arn}/messages/*" });
                        self.must(resources().eq([&messages]), "ActivityRole: objects other than messages");
                    }
                    "sqs" if verb == "SendMessage" => {
                        let may = ["RunQueue", "TaskQueue", "AlarmQueue", "DeadLetters"];
                        self.must(resources().all(|resource| may.contains(&owner(resource))), "ActivityRole: sends");
                    }
                    "sqs" => self.must(resources().eq([&get_att("TaskQueue", "Arn")]), "ActivityRole: receives"),
                    "logs" | "kms" | "scheduler" | "iam" => {}
                    _ => self.must(false, rule),
                }
            }
        }
    }

    fn other_roles(&mut self) {
        let statements: Vec<_> =
            self.all("AWS::IAM::Role").into_iter().flat_map(|role| self.statements(role)).collect();
        for statement in &statements {
            for action in &statement.actions {
                let (service, _) = action.split_once(':').unwrap_or_default();
                let may: &[&str] = match service {
                    "scheduler" | "iam" => &["OrchestratorRole", "ActivityRole"],
                    "lambda" => &["SweepRole"],
                    "dynamodb" | "s3" => &["OrchestratorRole", "ApiRole", "ActivityRole"],
                    "sqs" => &["OrchestratorRole", "ApiRole", "ActivityRole", "AlarmScheduleRole"],
                    "logs" => &["OrchestratorRole", "ApiRole", "ActivityRole"],
                    "kms" => &["OrchestratorRole", "ApiRole", "ActivityRole", "AlarmScheduleRole", "SweepRole"],
                    _ => &[],
                };
                self.must(may.contains(&statement.role), format!("{}: {action}", statement.role));
                let resource = statement.resources.first().copied().unwrap_or(&Value::Null);
                if service == "scheduler" {
                    let group =
                        "arn:${AWS::Partition}:scheduler:${AWS::Region}:${AWS::AccountId}:schedule/${AlarmSchedules}/*";
                    let fine = *action == "scheduler:CreateSchedule" && *resource == json!({ "Fn::Sub": group });
                    self.must(fine && statement.resources.len() == 1, format!("{}: {action}", statement.role));
                }
                if service == "iam" {
                    self.must(*action == "iam:PassRole", format!("{}: {action}", statement.role));
                    let only = json!({ "StringEquals": { "iam:PassedToService": "scheduler.amazonaws.com" } });
                    let fine = *resource == get_att("AlarmScheduleRole", "Arn") && statement.whole["Condition"] == only;
                    self.must(fine && statement.resources.len() == 1, "PassRole: the schedules' role, to schedules");
                }
                if *action == "lambda:InvokeFunction" {
                    let fine = *resource == get_att("Orchestrator", "Arn") && statement.resources.len() == 1;
                    self.must(fine, format!("{}: invokes the orchestrator alone", statement.role));
                }
                let deletes = ["dynamodb:DeleteItem", "s3:DeleteObject", "dynamodb:BatchWriteItem"].contains(action);
                if statement.role == "ApiRole" && deletes {
                    let letters = json!(["quarantine#*"]);
                    let fine = statement.whole["Condition"]["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]
                        == letters
                        || *resource == json!({ "Fn::Sub": "${Bucket.Arn}/quarantine/*" });
                    self.must(fine, "ApiRole: deletes nothing but what is in quarantine");
                }
                if statement.role == "AlarmScheduleRole" && service == "sqs" {
                    self.must(
                        *action == "sqs:SendMessage" && *resource == get_att("AlarmQueue", "Arn"),
                        "AlarmScheduleRole",
                    );
                }
            }
        }
    }

    /// Of workers, only outcomes are taken; so the orchestrator must know who is none.
    fn senders(&mut self) {
        let environment = &self.properties("Orchestrator")["Environment"]["Variables"];
        let trusted = json!({ "Fn::Sub": "${AWS::AccountId},${OrchestratorRole.RoleId},${ApiRole.RoleId}" });
        self.must(environment["DORMOUSE_TRUSTED_SENDERS"] == trusted, "DORMOUSE_TRUSTED_SENDERS");
        let expected = json!({
            "FunctionName": reference("Orchestrator"),
            "Action": "lambda:InvokeFunction",
            "Principal": get_att("ApiRole", "Arn"),
        });
        self.must(*self.properties("ApiMayQuery") == expected, "ApiMayQuery: the API asks the orchestrator");
        let permissions: BTreeSet<_> = self.all("AWS::Lambda::Permission").into_iter().collect();
        self.must(permissions == BTreeSet::from(["ApiMayQuery", "ApiPermission"]), "permissions that no rule looks at");
    }

    /// What is taken out of quarantine goes to any queue, and is removed: no emulator refuses it, AWS would.
    fn redrive(&mut self) {
        let mut needed = vec![
            ("dynamodb:DeleteItem", get_att("Table", "Arn")),
            ("s3:DeleteObject", json!({ "Fn::Sub": "${Bucket.Arn}/quarantine/*" })),
        ];
        for queue in ["RunQueue", "AlarmQueue", "TaskQueue", "PythonTaskQueue"] {
            needed.push(("sqs:SendMessage", get_att(queue, "Arn")));
        }
        let statements = self.statements("ApiRole");
        for (action, resource) in needed {
            let may = |statement: &Statement<'_>| {
                statement.actions.contains(&action) && statement.resources.contains(&&resource)
            };
            self.must(statements.iter().any(may), format!("ApiRole: redrive needs {action} on {resource}"));
        }
    }

    fn table(&mut self) {
        let table = self.properties("Table");
        self.must(self.root["Resources"]["Table"]["DeletionPolicy"] == "Retain", "Table: outlives the stack");
        self.must(table["DeletionProtectionEnabled"] == reference("DeletionProtection"), "Table: deletion protection");
        self.must(table["BillingMode"] == "PAY_PER_REQUEST", "Table: on demand");
        let recovery = &table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"];
        self.must(*recovery == true, "Table: point in time recovery");
        let expiry = json!({ "AttributeName": "expires", "Enabled": true });
        self.must(table["TimeToLiveSpecification"] == expiry, "Table: expiry");
        let keys = |of: &Value| -> Vec<String> {
            of["KeySchema"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|key| format!("{} {}", key["AttributeName"], key["KeyType"]))
                .collect()
        };
        self.must(keys(table) == ["\"p\" \"HASH\"", "\"s\" \"RANGE\""], "Table: key");
        for (name, hash, range) in [("by_start", "lp", "ls"), ("by_due", "dp", "ds"), ("by_parked", "pp", "ps")] {
            let indexes = table["GlobalSecondaryIndexes"].as_array().unwrap();
            let index = indexes.iter().find(|index| index["IndexName"] == name).unwrap_or(&Value::Null);
            let fine = keys(index) == [format!("\"{hash}\" \"HASH\""), format!("\"{range}\" \"RANGE\"")];
            self.must(fine && index["Projection"]["ProjectionType"] == "ALL", format!("Table: index {name}"));
            let arn = json!({ "Fn::Sub": format!("${{Table.Arn}}/index/{name}") });
            for role in ["OrchestratorRole", "ApiRole"] {
                let mut queries = self.statements(role).into_iter().filter(|it| it.actions.contains(&"dynamodb:Query"));
                self.must(queries.any(|query| query.resources.contains(&&arn)), format!("{role}: reads {name}"));
            }
        }
    }

    fn bucket(&mut self) {
        let bucket = self.properties("Bucket");
        self.must(self.root["Resources"]["Bucket"]["DeletionPolicy"] == "Retain", "Bucket: outlives the stack");
        for name in ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"] {
            self.must(bucket["PublicAccessBlockConfiguration"][name] == true, "Bucket: private");
        }
        let encryption =
            &bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]["ServerSideEncryptionByDefault"];
        let algorithms: Vec<_> = branches(encryption).iter().map(|rule| rule["SSEAlgorithm"].as_str()).collect();
        self.must(algorithms == [Some("aws:kms"), Some("AES256")], "Bucket: encryption");

        let denied = json!({
            "Sid": "OnlyOverTls", "Effect": "Deny", "Principal": "*", "Action": "s3:*",
            "Resource": [get_att("Bucket", "Arn"), { "Fn::Sub": "${Bucket.Arn}/*" }],
            "Condition": { "Bool": { "aws:SecureTransport": "false" } },
        });
        let policy = self.properties("BucketPolicy");
        let statements = policy["PolicyDocument"]["Statement"].as_array().unwrap();
        self.must(policy["Bucket"] == reference("Bucket") && statements.contains(&denied), "Bucket: TLS only");

        let rules = bucket["LifecycleConfiguration"]["Rules"].as_array().unwrap();
        let enabled = |name: &str| rules.iter().find(|rule| rule["Id"] == name && rule["Status"] == "Enabled");
        // A message's body outlives the message.
        let days = enabled("messages").and_then(|rule| rule["ExpirationInDays"].as_u64()).unwrap_or_default();
        self.must(days * 24 * 60 * 60 > FOURTEEN_DAYS, "Bucket: messages outlive their queue");
        let aborted = enabled("uploads")
            .is_some_and(|rule| rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"].is_u64());
        self.must(aborted, "Bucket: uploads that never end");
        for rule in rules {
            let expires = !rule["ExpirationInDays"].is_null();
            self.must(!expires || rule["Prefix"] == "messages/", "Bucket: nothing but messages expires");
        }
    }

    fn api(&mut self) {
        for route in self.all("AWS::ApiGatewayV2::Route") {
            let route_ = self.properties(route);
            let kinds = branches(&route_["AuthorizationType"]);
            let known = kinds.iter().all(|kind| ["JWT", "AWS_IAM"].contains(&kind.as_str().unwrap_or_default()));
            self.must(!kinds.is_empty() && known, format!("{route}: authorization"));
            let needed =
                !kinds.contains(&&json!("JWT")) || branches(&route_["AuthorizerId"]) == [&reference("JwtAuthorizer")];
            self.must(needed, format!("{route}: authorizer"));
            self.must(route_["RouteKey"] == "$default", format!("{route}: key"));
        }
        self.must(self.all("AWS::ApiGatewayV2::Route").len() == 1, "one route");
        self.must(self.all("AWS::Lambda::Url").is_empty(), "ways in that no rule looks at");
        let jwt = &self.properties("JwtAuthorizer")["JwtConfiguration"];
        let fine = jwt["Issuer"] == reference("JwtIssuer") && jwt["Audience"] == reference("JwtAudience");
        self.must(fine, "JwtAuthorizer: issuer and audience");
        let permission = self.properties("ApiPermission");
        let source = permission["SourceArn"]["Fn::Sub"].as_str().unwrap_or_default();
        self.must(source.ends_with(":${HttpApi}/*/$default"), "ApiPermission: this API's route alone");

        let stage = self.properties("ApiStage");
        for name in ["ThrottlingRateLimit", "ThrottlingBurstLimit"] {
            self.must(!stage["DefaultRouteSettings"][name].is_null(), "ApiStage: throttling");
        }
        let format = stage["AccessLogSettings"]["Format"].as_str().unwrap_or_default();
        let fields: Vec<_> = format.split("$context.").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let harmless = [
            "requestId",
            "requestTime",
            "identity.userArn",
            "httpMethod",
            "path",
            "status",
            "responseLatency",
            "responseLength",
            "error.message",
            "integrationErrorMessage",
        ];
        let fine = !fields.is_empty() && fields.iter().all(|field| harmless.contains(field));
        self.must(fine, "ApiStage: access log without payloads");
    }

    fn alarms(&mut self) {
        let alarms = self.all("AWS::CloudWatch::Alarm");
        for alarm in &alarms {
            let told = branches(&self.properties(alarm)["AlarmActions"]) == [&json!([reference("AlarmTopicArn")])];
            self.must(told, format!("{alarm}: nobody is told"));
        }
        let watched = |metric: &str, of: &Value| {
            alarms.iter().any(|alarm| {
                let alarm = self.properties(alarm);
                alarm["MetricName"] == metric && alarm["Dimensions"][0]["Value"] == *of
            })
        };
        let dead = self.dead_letters();
        let mut missing = Vec::new();
        for queue in self.all("AWS::SQS::Queue") {
            // What the redrive policy moves is not counted as sent.
            let metric =
                if dead.contains(queue) { "NumberOfMessagesReceived" } else { "ApproximateAgeOfOldestMessage" };
            let ours = self.root["Resources"][queue]["Condition"] != "UsePython";
            if ours && !watched(metric, &get_att(queue, "QueueName")) {
                missing.push(format!("{queue}: alarm on {metric}"));
            }
        }
        for function in self.all("AWS::Serverless::Function") {
            if !watched("Errors", &reference(function)) {
                missing.push(format!("{function}: alarm on Errors"));
            }
        }
        for metric in ["ParkedRuns", "OldestParkedRun"] {
            if !watched(metric, &reference("Orchestrator")) {
                missing.push(format!("Orchestrator: alarm on {metric}"));
            }
        }
        self.faults.extend(missing);
        for alarm in ["RunsParked", "OldestParkedRun"] {
            let properties = self.properties(alarm);
            // Where the sweep tells them; and it tells nothing of none.
            self.must(properties["Namespace"] == "Dormouse", format!("{alarm}: namespace"));
            self.must(properties["TreatMissingData"] == "notBreaching", format!("{alarm}: nothing told is good"));
        }
        // Messages wait there for up to 900 seconds.
        self.must(self.properties("AlarmQueueOld")["Threshold"].as_u64() > Some(900), "AlarmQueueOld: false alarms");
    }

    fn sweep(&mut self) {
        let sweep = self.properties("Sweep");
        self.must(sweep["ScheduleExpression"] == "rate(1 minute)", "Sweep: every minute");
        let every = &self.root["Globals"]["Function"]["Environment"]["Variables"]["DORMOUSE_SWEEP_SECONDS"];
        self.must(*every == "60", "Sweep: DORMOUSE_SWEEP_SECONDS says the same");
        let target = &sweep["Target"];
        let fine = target["Arn"] == get_att("Orchestrator", "Arn") && target["Input"] == r#"{"dormouse":"sweep"}"#;
        self.must(fine, "Sweep: what it sends");
        self.must(sweep["GroupName"] == "default", "Sweep: out of the orchestrator's reach");
        let repeats = &self.properties("OrchestratorInvocations")["MaximumRetryAttempts"];
        self.must(*repeats == 0, "Orchestrator: a sweep is not repeated");
    }
}

/// Whether a resource is more than one named thing and what lies in it.
fn wild(resource: &Value) -> bool {
    match (resource.as_str(), resource["Fn::Sub"].as_str()) {
        (Some(text), _) | (None, Some(text)) => {
            let before = text.split('*').next().unwrap();
            text.contains('*') && !(before.contains("${Bucket.Arn}/") || before.contains("${AlarmSchedules}/"))
        }
        (None, None) => owner(resource).is_empty(),
    }
}
