//! Each program's start: its help names every variable, and what is missing or malformed ends it with the variable's name, and no secret.

use std::{
    fs,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::PAIR_PROCESS;

/// A database that is not there: what is wrong otherwise must be found before it is looked for.
const NO_DATABASE: &str = "postgres://nobody@127.0.0.1:1/nothing";

const REFERRAL: [(&str, &str); 14] = [
    ("REFERRAL_LISTEN", "127.0.0.1:50051"),
    ("REFERRAL_HTTP_LISTEN", "127.0.0.1:50061"),
    ("REFERRAL_DATABASE_URL", ""),
    ("REFERRAL_MIGRATION_URL", ""),
    ("NOTIFY_URL", "http://127.0.0.1:50052"),
    ("PLAN_FILE", "built-in"),
    ("AUDIT_SIGNING_KEY", ""),
    ("LEDGER_CHECK_INTERVAL_MINUTES", "60"),
    ("PAYMENT_METHODS", ""),
    ("TON_ADDRESS", ""),
    ("TON_API_URL", "https://tonapi.io"),
    ("TON_API_KEY", ""),
    ("TON_TOLERANCE_BPS", "100"),
    ("TON_RATE_MAX_AGE_SECONDS", "600"),
];
const NOTIFY: [(&str, &str); 14] = [
    ("NOTIFY_LISTEN", "127.0.0.1:50052"),
    ("NOTIFY_HTTP_LISTEN", "127.0.0.1:50062"),
    ("REFERRAL_URL", ""),
    ("NOTIFY_DATABASE_URL", ""),
    ("NOTIFY_MIGRATION_URL", ""),
    ("TELEGRAM_BOT_TOKEN", ""),
    ("TELEGRAM_API_URL", "https://api.telegram.org"),
    ("SMTP_URL", ""),
    ("SMTP_FROM", "P2PHub <no-reply@localhost>"),
    ("SMTP_CA_FILE", ""),
    ("UNSUBSCRIBE_URL", ""),
    ("WEBHOOK_PRIVATE_TARGETS", ""),
    ("WEBHOOK_SIGNING_SECRET", ""),
    ("SLACK_API_URL", ""),
];
const BOTH: [(&str, &str); 13] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
    ("OTEL_EXPORTER_OTLP_HEADERS", ""),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "the system's"),
    ("OTEL_TRACES_EXPORTER", "otlp"),
    ("OTEL_METRICS_EXPORTER", "otlp"),
    ("OTEL_TRACES_SAMPLER ", "parentbased_always_on"),
    ("OTEL_TRACES_SAMPLER_ARG", "1"),
    ("SENTRY_DSN", ""),
    ("SENTRY_RELEASE", ""),
    ("SENTRY_ENVIRONMENT", ""),
    ("SENTRY_TRACES_SAMPLE_RATE", "0.1"),
    ("RUST_LOG", ""),
    ("SLOW_STATEMENT_MS", "250"),
];

/// Runs a program to its end with these variables alone.
pub(crate) fn run(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut child = Command::new(PAIR_PROCESS)
        .env_clear()
        .env("PAIR_PROCESS", program)
        .envs(variables.iter().copied())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    // The helper ends with its input.
    let _input = child.stdin.take();
    let begin = Instant::now();
    while child.try_wait().expect("a status").is_none() {
        if begin.elapsed() > Duration::from_secs(10) {
            child.kill().expect("a kill");
            panic!("{program} {arguments:?} {variables:?} runs, and should have ended");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("output")
}

#[test]
fn help_names_every_variable_with_its_default() {
    let data_dir = [("P2PHUB_DATA_DIR", "")];
    for (program, groups) in [
        ("referral-svc", vec![REFERRAL.as_slice(), &BOTH]),
        ("notify-svc", vec![NOTIFY.as_slice(), &BOTH]),
        ("p2phub", vec![&REFERRAL, &NOTIFY, &BOTH, &data_dir]),
    ] {
        let output = run(program, &["--help"], &[]);
        assert!(output.status.success(), "{program}");
        let help = String::from_utf8_lossy(&output.stdout);
        for (variable, default) in groups.into_iter().flatten() {
            let (_, after) = help.split_once(variable).unwrap_or_else(|| panic!("{program}: {variable} in\n{help}"));
            // The local pair says where its own notify-svc listens instead.
            let known = after.contains(default) || (program == "p2phub" && *variable == "NOTIFY_URL");
            assert!(known, "{program}: {variable}'s default {default} in\n{help}");
        }
    }
}

#[test]
fn without_a_database_a_service_says_which_variable_is_missing() {
    for (program, variable) in [("referral-svc", "REFERRAL_DATABASE_URL"), ("notify-svc", "NOTIFY_DATABASE_URL")] {
        for variables in [vec![], vec![(variable, "")]] {
            let output = run(program, &[], &variables);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{program} ended well");
            assert!(errors.contains(variable), "{program}: {errors}");
        }
    }
}

#[test]
fn a_malformed_value_ends_the_start_with_its_variables_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        fs::write(&path, content).expect("a file");
        path.to_str().expect("a path").to_owned()
    };
    let (noise, empty) = (file("noise.json", "{"), file("empty.json", "{}"));
    // Well formed, but one too many.
    let hidden_secrets = ["whsec_aGlkZGVuIGhpZGRlbiBoaWRkZW4gaGlkZGVu"; 3].join(" ");
    let referral = [
        ("REFERRAL_LISTEN", "nonsense"),
        ("REFERRAL_LISTEN", "localhost"),
        ("REFERRAL_HTTP_LISTEN", "nonsense"),
        ("REFERRAL_DATABASE_URL", "nonsense"),
        ("REFERRAL_DATABASE_URL", "postgres://someone:hidden@localhost:many/x"),
        ("REFERRAL_MIGRATION_URL", "nonsense"),
        ("REFERRAL_POOL_SIZE", "many"),
        ("REFERRAL_POOL_SIZE", "0"),
        ("REFERRAL_BATCH_MAX", "0"),
        ("REFERRAL_BATCH_MAX", "501"),
        ("NOTIFY_URL", "nonsense"),
        ("NOTIFY_URL", "ftp://127.0.0.1"),
        ("PLAN_FILE", "/nowhere/plan.json"),
        ("PLAN_FILE", &noise),
        ("PLAN_FILE", &empty),
        ("AUDIT_SIGNING_KEY", "hidden key"),
        ("AUDIT_SIGNING_KEY", "aGlkZGVuIGhpZGRlbiBoaWRkZW4="),
        ("LEDGER_CHECK_INTERVAL_MINUTES", "-1"),
        ("LEDGER_CHECK_INTERVAL_MINUTES", "often"),
        ("PAYMENT_METHODS", "cash"),
        ("PAYMENT_METHODS", "trusted;manual"),
        ("TON_TOLERANCE_BPS", "1001"),
        ("TON_RATE_MAX_AGE_SECONDS", "1"),
    ];
    let notify = [
        ("NOTIFY_LISTEN", "nonsense"),
        ("NOTIFY_HTTP_LISTEN", "localhost:http"),
        ("REFERRAL_URL", "nonsense"),
        ("REFERRAL_URL", "https://127.0.0.1:50051"),
        ("NOTIFY_DATABASE_URL", "nonsense"),
        ("NOTIFY_MIGRATION_URL", "postgres://someone:hidden@localhost:many/x"),
        ("NOTIFY_POOL_SIZE", "many"),
        ("NOTIFY_WORKERS", "0"),
        ("NOTIFY_LOG_TEXT", "maybe"),
        ("TELEGRAM_BOT_TOKEN", "hidden/token"),
        ("TELEGRAM_API_URL", "nonsense"),
        ("WEBHOOK_SIGNING_SECRET", "c2hvcnQ="),
        ("WEBHOOK_SIGNING_SECRET", "whsec_c2hvcnQ="),
        ("WEBHOOK_SIGNING_SECRET", &hidden_secrets),
        ("WEBHOOK_PRIVATE_TARGETS", "some"),
        ("SMTP_URL", "nonsense"),
        ("SMTP_URL", "smtp://someone:hidden@localhost?tls=maybe"),
        ("SMTP_URL", "smtps://someone:hidden@localhost:many"),
        ("SMTP_FROM", "nonsense"),
        ("SMTP_CA_FILE", "/nowhere/ca.pem"),
        ("SMTP_CA_FILE", &noise),
        ("UNSUBSCRIBE_URL", "http://app.example.org"),
        ("SLACK_API_URL", "nonsense"),
        ("SLACK_API_URL", "https://hooks.slack.com/?hidden"),
        ("NOTIFY_APP_URL", "nonsense"),
        ("NOTIFY_APP_URL", "ftp://app.example.org"),
    ];
    let both = [
        ("SENTRY_DSN", "nonsense"),
        ("SENTRY_TRACES_SAMPLE_RATE", "often"),
        ("SENTRY_TRACES_SAMPLE_RATE", "1.5"),
        ("RUST_LOG", "info,service=loud=very"),
        ("LOG_FORMAT", "xml"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_METRICS_EXPORTER", "console"),
        ("SLOW_STATEMENT_MS", "soon"),
    ];
    let mut faults = Vec::new();
    for (program, database, table) in [
        ("referral-svc", "REFERRAL_DATABASE_URL", referral.as_slice()),
        ("notify-svc", "NOTIFY_DATABASE_URL", &notify),
        ("referral-svc", "REFERRAL_DATABASE_URL", &both),
        ("notify-svc", "NOTIFY_DATABASE_URL", &both),
    ] {
        for (variable, value) in table {
            let output = run(program, &[], &[(database, NO_DATABASE), (variable, value)]);
            let errors = String::from_utf8_lossy(&output.stderr);
            if output.status.success() || !errors.contains(variable) || errors.contains("hidden") {
                faults.push(format!("{program} with {variable}={value}: {errors}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_certificate_that_cannot_be_read_ends_the_start_with_its_variables_name() {
    let variables = [
        ("REFERRAL_DATABASE_URL", NO_DATABASE),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
    ];
    let output = run("referral-svc", &[], &variables);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("OTEL_EXPORTER_OTLP_CERTIFICATE"), "{errors}");
}
