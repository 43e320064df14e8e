//! What the template for AWS must say: each statement here is something that was learnt the hard way by somebody, and
//! none of it is noticed by an emulator.

#[path = "template/rules.rs"]
mod rules;
#[path = "template/yaml.rs"]
mod yaml;

const TEMPLATE: &str = include_str!("../../infra/sam/template.yaml");

/// What is wrong with the template.
fn faults(text: &str) -> Vec<String> {
    rules::faults(&yaml::parse(text))
}

#[test]
fn the_template_keeps_every_rule() {
    let faults = faults(TEMPLATE);
    assert!(faults.is_empty(), "{faults:#?}");
}

/// What somebody might write, and the rule that must notice.
const PLANTED: &[(&str, &str, &str)] = &[
    // Functions.
    ("      RecursiveLoop: Allow\n", "", "Orchestrator: RecursiveLoop"),
    ("      RecursiveLoop: Allow\n", "      RecursiveLoop: Terminate\n", "Orchestrator: RecursiveLoop"),
    ("Role: !GetAtt ActivityRole.Arn", "Role: !GetAtt OrchestratorRole.Arn", ": a role of its own"),
    ("DORMOUSE_ROLE: activity", "DORMOUSE_ROLE: orchestrator", "DORMOUSE_ROLE"),
    ("        DORMOUSE_BUILD_ID: !Ref BuildId\n", "", "DORMOUSE_BUILD_ID"),
    ("Runtime: provided.al2023", "Runtime: provided.al2", "runtime"),
    ("      Timeout: 29\n", "      Timeout: 60\n", "Api: answers before the gateway gives up"),
    ("LoggingConfig: { LogGroup: !Ref ApiLog }", "LoggingConfig: { LogFormat: JSON }", "Api: log group"),
    ("      RetentionInDays: !Ref LogRetentionDays\n", "", "OrchestratorLog: retention"),
    ("ReservedConcurrentExecutions: !If [Reserve, ", "Nothing: !If [Reserve, ", "Orchestrator: concurrency"),
    (
        "Runs: 50, Alarms: 10, Activities: 50, Orchestrator: 80",
        "Runs: 80, Alarms: 10, Activities: 50, Orchestrator: 80",
        "medium: orchestrator",
    ),
    ("Orchestrator: 25, Activity: 10", "Orchestrator: 25, Activity: 9", "small: activity"),
    // Queues and what listens to them.
    ("      FunctionResponseTypes: [ReportBatchItemFailures]\n", "", "RunSource: ReportBatchItemFailures"),
    ("      ScalingConfig: { MaximumConcurrency: 2 }\n", "", "RunDeadLetterSource: MaximumConcurrency"),
    ("BatchSize: 10\n", "BatchSize: 11\n", "RunSource: batch"),
    ("VisibilityTimeout: 180\n", "VisibilityTimeout: 179\n", "RunSource: visibility"),
    ("'300': { Visibility: 1800 }", "'300': { Visibility: 1799 }", "TaskSource: visibility"),
    (
        "AllowedValues: ['60', '120', '300', '600', '900']",
        "AllowedValues: ['60', '120', '300', '600', '901']",
        "TaskSource: visibility",
    ),
    ("maxReceiveCount: 20", "maxReceiveCount: 19", "RunQueue: maxReceiveCount"),
    ("      MessageRetentionPeriod: 1209600\n", "", "RunQueue: retention"),
    ("      SqsManagedSseEnabled: !If [UseKey, !Ref AWS::NoValue, true]\n", "", "RunQueue: encryption"),
    (
        "deadLetterTargetArn: !GetAtt RunDeadLetters.Arn",
        "deadLetterTargetArn: !GetAtt DeadLetters.Arn",
        "RunQueue: dead letters of its kind",
    ),
    (
        "EventSourceArn: !GetAtt RunDeadLetters.Arn",
        "EventSourceArn: !GetAtt AlarmQueue.Arn",
        "RunDeadLetters: nobody listens",
    ),
    ("${RunDeadLetters.Arn},${DeadLetters.Arn}", "${DeadLetters.Arn}", "DORMOUSE_DEAD_LETTER_ARNS"),
    ("      FifoQueue: true\n", "", "RunQueue: FIFO"),
    (
        "Default: 900\n    MinValue: 1\n    MaxValue: 900",
        "Default: 900\n    MinValue: 1\n    MaxValue: 901",
        "LongestDelaySeconds",
    ),
    // Roles.
    (
        "Action: lambda:InvokeFunction\n                Resource",
        "Action: lambda:*\n                Resource",
        "wildcard action",
    ),
    (
        "Action: lambda:InvokeFunction\n                Resource",
        "Action: '*'\n                Resource",
        "wildcard action",
    ),
    ("Resource: !GetAtt OrchestratorLog.Arn", "Resource: '*'", "wildcard resource"),
    ("Resource: !Sub '${Bucket.Arn}/*'", "Resource: !Sub 'arn:aws:s3:::*/*'", "wildcard resource"),
    ("Resource: !Sub '${Bucket.Arn}/*'", "NotResource: x", "Resource"),
    (
        "              - Sid: Receive\n                Effect: Allow",
        "              - Sid: Receive\n                Effect: Deny",
        "only allows",
    ),
    (
        "'ForAllValues:StringLike': { 'dynamodb:LeadingKeys': ['attempt#*'] }",
        "'ForAllValues:StringLike': { 'dynamodb:LeadingKeys': ['*'] }",
        "LeadingKeys",
    ),
    (
        "'ForAllValues:StringLike': { 'dynamodb:LeadingKeys'",
        "'ForAnyValue:StringLike': { 'dynamodb:LeadingKeys'",
        "LeadingKeys",
    ),
    ("                  'Null': { 'dynamodb:LeadingKeys': 'false' }\n", "", "LeadingKeys"),
    (
        "[dynamodb:GetItem, dynamodb:PutItem, dynamodb:UpdateItem]",
        "[dynamodb:GetItem, dynamodb:PutItem, dynamodb:Query]",
        "ActivityRole: dynamodb:Query",
    ),
    ("${Bucket.Arn}/messages/*", "${Bucket.Arn}/*", "ActivityRole: objects"),
    (
        "[!GetAtt RunQueue.Arn, !GetAtt TaskQueue.Arn, !GetAtt AlarmQueue.Arn, !GetAtt DeadLetters.Arn]",
        "[!GetAtt RunQueue.Arn, !GetAtt RunDeadLetters.Arn]",
        "ActivityRole: sends",
    ),
    (
        "Action: iam:PassRole\n                Resource: !GetAtt AlarmScheduleRole.Arn",
        "Action: iam:PassRole\n                Resource: !GetAtt ActivityRole.Arn",
        "PassRole",
    ),
    (
        "StringEquals: { 'iam:PassedToService': scheduler.amazonaws.com }",
        "StringEquals: { 'iam:PassedToService': lambda.amazonaws.com }",
        "PassRole",
    ),
    (
        "              - Sid: QuarantinedObjects\n",
        "              - Sid: Oops\n                Effect: Allow\n                Action: scheduler:CreateSchedule\n                Resource: !GetAtt AlarmSchedules.Arn\n              - Sid: QuarantinedObjects\n",
        "ApiRole: scheduler:CreateSchedule",
    ),
    ("                'aws:SourceAccount': !Ref AWS::AccountId\n", "", "AlarmScheduleRole: whose schedules"),
    (
        "Action: scheduler:CreateSchedule",
        "Action: scheduler:DeleteSchedule",
        "OrchestratorRole: scheduler:DeleteSchedule",
    ),
    ("schedule/${AlarmSchedules}/*", "schedule/default/*", "wildcard resource"),
    ("${OrchestratorRole.RoleId},${ApiRole.RoleId}", "${ActivityRole.RoleId}", "DORMOUSE_TRUSTED_SENDERS"),
    ("      Principal: !GetAtt ApiRole.Arn\n", "      Principal: !GetAtt ActivityRole.Arn\n", "ApiMayQuery"),
    ("['quarantine#*']", "['run#*']", "ApiRole: deletes"),
    ("${Bucket.Arn}/quarantine/*", "${Bucket.Arn}/runs/*", "ApiRole: deletes"),
    (
        "                  # For what is taken out of quarantine, as the next two.\n                  - !GetAtt AlarmQueue.Arn\n",
        "",
        "ApiRole: redrive needs sqs:SendMessage",
    ),
    ("Action: dynamodb:DeleteItem", "Action: dynamodb:GetItem", "ApiRole: redrive needs dynamodb:DeleteItem"),
    // What is kept.
    ("    DeletionPolicy: Retain\n", "", "Table: outlives"),
    ("PointInTimeRecoveryEnabled: true", "PointInTimeRecoveryEnabled: false", "Table: point in time"),
    ("BillingMode: PAY_PER_REQUEST", "BillingMode: PROVISIONED", "Table: on demand"),
    ("AttributeName: expires, Enabled: true", "AttributeName: expiry, Enabled: true", "Table: expiry"),
    ("IndexName: by_due", "IndexName: by_time", "Table: index by_due"),
    (
        "!Sub '${Table.Arn}/index/by_due', !Sub '${Table.Arn}/index/by_parked'",
        "!Sub '${Table.Arn}/index/by_due'",
        "OrchestratorRole: reads by_parked",
    ),
    (
        "Default: 'true'\n    AllowedValues: ['true', 'false']\n    Description: Whether DynamoDB",
        "Default: 'false'\n    AllowedValues: ['true', 'false']\n    Description: Whether DynamoDB",
        "DeletionProtection",
    ),
    ("        BlockPublicPolicy: true\n", "", "Bucket: private"),
    ("'aws:SecureTransport': 'false'", "'aws:SecureTransport': 'true'", "Bucket: TLS"),
    ("Resource: [!GetAtt Bucket.Arn, !Sub '${Bucket.Arn}/*']", "Resource: [!GetAtt Bucket.Arn]", "Bucket: TLS"),
    ("SSEAlgorithm: AES256", "SSEAlgorithm: none", "Bucket: encryption"),
    ("ExpirationInDays: 15", "ExpirationInDays: 14", "Bucket: messages"),
    ("AbortIncompleteMultipartUpload: { DaysAfterInitiation: 1 }", "ExpirationInDays: 1", "Bucket: uploads"),
    ("            Prefix: messages/\n", "", "Bucket: nothing but messages expires"),
    // The API.
    ("AuthorizationType: !If [UseJwt, JWT, AWS_IAM]", "AuthorizationType: NONE", "ApiRoute: authorization"),
    (
        "AuthorizationType: !If [UseJwt, JWT, AWS_IAM]",
        "AuthorizationType: !If [UseJwt, JWT, NONE]",
        "ApiRoute: authorization",
    ),
    ("AuthorizerId: !If [UseJwt, !Ref JwtAuthorizer, !Ref AWS::NoValue]", "OperationName: x", "ApiRoute: authorizer"),
    ("Audience: !Ref JwtAudience", "Audience: []", "JwtAuthorizer"),
    ("{HttpApi}/*/$default'", "{HttpApi}/*'", "ApiPermission"),
    ("ThrottlingRateLimit: !Ref ThrottleRate, ", "", "ApiStage: throttling"),
    ("\"path\":\"$context.path\"", "\"query\":\"$context.customQueryString\"", "ApiStage: access log"),
    // Alarms and the sweep.
    ("MetricName: NumberOfMessagesReceived", "MetricName: NumberOfMessagesSent", "RunDeadLetters: alarm"),
    ("Dimensions: [{ Name: QueueName, Value: !GetAtt TaskQueue.QueueName }]", "Dimensions: []", "TaskQueue: alarm"),
    ("Dimensions: [{ Name: FunctionName, Value: !Ref Api }]", "Dimensions: []", "Api: alarm"),
    (
        "      AlarmActions: !If [UseTopic, [!Ref AlarmTopicArn], !Ref AWS::NoValue]\n",
        "",
        "RunDeadLettersArrived: nobody is told",
    ),
    ("MetricName: ParkedRuns", "MetricName: Parked", "Orchestrator: alarm on ParkedRuns"),
    ("Namespace: Dormouse", "Namespace: AWS/Lambda", "RunsParked: namespace"),
    ("      Threshold: 1800\n", "      Threshold: 900\n", "AlarmQueueOld"),
    ("rate(1 minute)", "rate(5 minutes)", "Sweep"),
    ("'{\"dormouse\":\"sweep\"}'", "'{}'", "Sweep"),
    ("      GroupName: default\n", "      GroupName: !Ref AlarmSchedules\n", "Sweep"),
    ("      MaximumRetryAttempts: 0\n", "      MaximumRetryAttempts: 2\n", "Orchestrator: a sweep"),
];

#[test]
fn every_rule_can_be_broken() {
    let mut unnoticed = Vec::new();
    for (found, instead, rule) in PLANTED {
        assert!(TEMPLATE.contains(found), "the template has changed, and this no longer breaks it: {found}");
        let faults = faults(&TEMPLATE.replacen(found, instead, 1));
        if !faults.iter().any(|fault| fault.contains(rule)) {
            unnoticed.push(format!("{rule:?} did not notice {instead:?}: {faults:?}"));
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:#?}");
}
