//! Polls without a resource of this machine. Each test runs its polls in a process of its own that lacks
//! the resource.

use crate::support::not_run::not_run;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::stub::{answer_good, request, stub};
use super::*;

/// Set in the process that lacks something.
const DEPRIVED: &str = "PINWATCH_TEST_DEPRIVED";

/// Whether this process lacks the resource. If not, it has run the test of that name in one that does, started by `by`.
fn is_deprived(test: &str, by: &[&str]) -> bool {
    if std::env::var_os(DEPRIVED).is_some() {
        return true;
    }
    let this = std::env::current_exe().unwrap();
    let line = [by, &[this.to_str().unwrap(), "--exact", test, "--nocapture"]].concat();
    let output = Command::new(line[0]).args(&line[1..]).env(DEPRIVED, "yes").output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    false
}

#[track_caller]
fn assert_not_sent(meaning: &Meaning, text: &str) {
    let Meaning::NotSent(said) = meaning else { panic!("{meaning:?}") };
    assert!(said.contains(text), "{said}");
}

#[test]
fn a_process_without_free_file_descriptors_names_the_limit_to_raise() {
    if !is_deprived("poll::local::a_process_without_free_file_descriptors_names_the_limit_to_raise", &[]) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (url, _) = stub(|_, mut stream| async move {
            request(&mut stream).await;
            answer_good(&mut stream).await;
        })
        .await;
        let by_address = Client::new(&api(&url)).unwrap();
        let by_name = Client::new(&api(&url.replace("127.0.0.1", "localhost"))).unwrap();
        let ample = getrlimit(Resource::Nofile);
        let next = std::os::fd::AsRawFd::as_raw_fd(&std::fs::File::open("/dev/null").unwrap());
        let none = Rlimit { current: Some(u64::try_from(next).unwrap()), ..ample };
        setrlimit(Resource::Nofile, none).unwrap();
        for client in [&by_address, &by_name] {
            for connection in [Connection::Kept, Connection::New] {
                let meaning = client.poll(&pin(), connection).await;
                assert_not_sent(&meaning, &format!("all {next} file descriptors"));
                assert_not_sent(&meaning, "LimitNOFILE=");
            }
        }
        setrlimit(Resource::Nofile, ample).unwrap();
        assert_delivered(&by_address.poll(&pin(), Connection::Kept).await);
        assert_delivered(&by_name.poll(&pin(), Connection::Kept).await);
    });
}

#[test]
fn a_poll_without_a_network_is_reported_as_not_sent() {
    let may = Command::new("unshare").args(["--net", "true"]).output();
    if !may.as_ref().is_ok_and(|output| output.status.success()) {
        not_run("a machine without a network", "root, for a network of its own");
        return;
    }
    if !is_deprived("poll::local::a_poll_without_a_network_is_reported_as_not_sent", &["unshare", "--net"]) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Even the loopback interface is down.
    assert_not_sent(&runtime.block_on(poll(&api("http://127.0.0.1:9"))), "no route to the API");
}
