//! The one command: starts, says where, keeps its data, stops cleanly, and leaves nothing behind however it ends.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use p2phub_tests::{builders::registration, clients::Clients, ports, probe, wait};

use crate::PAIR_PROCESS;

struct Local {
    child: Child,
    lines: Vec<String>,
    referral: SocketAddr,
    notify: SocketAddr,
    ready_after: Duration,
}

fn command(data: &Path, referral: SocketAddr, notify: SocketAddr) -> Command {
    let mut command = Command::new(PAIR_PROCESS);
    for variable in [
        "REFERRAL_DATABASE_URL",
        "NOTIFY_DATABASE_URL",
        "REFERRAL_HTTP_LISTEN",
        "NOTIFY_HTTP_LISTEN",
        "NOTIFY_URL",
        "REFERRAL_URL",
        "PAYMENT_METHODS",
        "PLAN_FILE",
    ] {
        command.env_remove(variable);
    }
    command
        .env("PAIR_PROCESS", "p2phub")
        .env("RUST_LOG", "warn")
        .env("P2PHUB_DATA_DIR", data)
        .env("REFERRAL_LISTEN", referral.to_string())
        .env("NOTIFY_LISTEN", notify.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end, holding on to its input: it would end with that.
fn run(mut command: Command) -> Output {
    let mut child = command.spawn().expect("a process");
    let input = child.stdin.take();
    let output = child.wait_with_output().expect("an end");
    drop(input);
    output
}

/// Starts it, and reads its output up to the ready line.
fn start(data: &Path) -> Local {
    let (referral, notify) = (ports::free(), ports::free());
    let begin = Instant::now();
    let mut child = command(data, referral, notify).spawn().expect("a process");
    let mut lines = Vec::new();
    let mut output = BufReader::new(child.stdout.as_mut().expect("output"));
    while lines.last().map(String::as_str) != Some("ready") {
        let mut line = String::new();
        if output.read_line(&mut line).expect("a line") == 0 {
            let mut errors = String::new();
            child.stderr.as_mut().expect("errors").read_to_string(&mut errors).expect("text");
            panic!("ended before it was ready: {errors}");
        }
        lines.push(line.trim_end().to_owned());
    }
    Local { lines, referral, notify, ready_after: begin.elapsed(), child }
}

impl Local {
    fn clients(&self) -> Clients {
        Clients::new(self.referral, self.notify)
    }

    async fn stop(mut self, signal: &str) -> ExitStatus {
        Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("a signal");
        wait::until("the pair to stop", async || self.child.try_wait().expect("a status")).await
    }
}

/// The server's process ID.
fn postmaster(data: &Path) -> Option<String> {
    let text = fs::read_to_string(data.join("postgres/data/postmaster.pid")).ok()?;
    text.lines().next().map(str::to_owned)
}

fn socket_answers(data: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(data.join("postgres/.s.PGSQL.5432")).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn data_survives_a_clean_stop_and_kills() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");

    let first = start(&data);
    let text = first.lines.join("\n");
    assert!(text.contains(data.to_str().expect("a path")), "{text}");
    assert!(text.contains(&first.referral.to_string()) && text.contains(&first.notify.to_string()), "{text}");
    assert!(text.contains("grpcurl -plaintext"), "{text}");
    for service in ["referral-svc", "notify-svc"] {
        let line = first.lines.iter().find(|line| line.starts_with(service)).expect("a line");
        let (_, http) = line.split_once(" http ").expect("where HTTP is");
        let http = http.trim().parse().expect("an address");
        // Each knows of the other without being told.
        wait::until("both to be up", async || {
            let ready = probe::get(http, "/readyz").await;
            (ready.status == 200 && ready.json()["peer"]["status"] == "up").then_some(())
        })
        .await;
    }
    let partner = first.clients().register("local-1", "").await;
    assert!(first.stop("-TERM").await.success());
    assert!(!socket_answers(&data), "PostgreSQL outlived a clean stop");

    let mut second = start(&data);
    assert!(second.ready_after < Duration::from_secs(5), "ready after {:?}", second.ready_after);
    assert_eq!(second.clients().partner(&partner.partner_id).await, partner);
    let killed = postmaster(&data).expect("a running server");
    Command::new("kill").args(["-KILL", &killed]).status().expect("a signal");
    wait::until("another PostgreSQL", async || {
        (postmaster(&data).is_some_and(|pid| pid != killed) && socket_answers(&data)).then_some(())
    })
    .await;
    let request = registration("local-2", &partner.referral_code);
    let other = wait::until("the pair to serve again", async || {
        second.clients().partners.register_partner(request.clone()).await.ok()
    })
    .await;
    let other = other.into_inner().partner.expect("a partner");
    assert!(second.child.try_wait().expect("a status").is_none(), "the pair ended with its PostgreSQL");
    assert!(!second.stop("-KILL").await.success());
    wait::until("PostgreSQL to follow a killed parent", async || (!socket_answers(&data)).then_some(())).await;

    let third = start(&data);
    assert_eq!(third.clients().partner(&other.partner_id).await, other);
    assert!(third.stop("-INT").await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_with_its_variable() {
    let directory = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let with_grpc = command(directory.path(), address, ports::free());
    let mut with_http = command(directory.path(), ports::free(), ports::free());
    with_http.env("NOTIFY_HTTP_LISTEN", address.to_string());
    for (command, variable) in [(with_grpc, "REFERRAL_LISTEN"), (with_http, "NOTIFY_HTTP_LISTEN")] {
        let output = run(command);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(errors.contains(&address.to_string()) && errors.contains(variable), "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_variable_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    for variable in ["REFERRAL_LISTEN", "NOTIFY_LISTEN", "REFERRAL_POOL_SIZE", "NOTIFY_POOL_SIZE", "PAYMENT_METHODS"] {
        let mut command = command(directory.path(), ports::free(), ports::free());
        command.env(variable, "nonsense");
        let output = run(command);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{variable} was accepted");
        assert!(errors.contains(variable), "{variable}: {errors}");
    }
}

#[test]
fn the_demo_finds_every_figure_right() {
    let unused = tempfile::tempdir().expect("a directory");
    let mut command = command(unused.path(), ports::free(), ports::free());
    command.arg("demo");
    let output = run(command);
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    for figure in ["11.70", "1.95", "1.17", "0.39", "17.16", "21.84", "-39.00"] {
        assert!(text.contains(figure), "{figure} is missing in:\n{text}");
    }
}
