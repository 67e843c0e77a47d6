#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! The register in a real etcd (Debian's etcd-server), which is killed and started again.

use gemel_pair::protocol::{Changed, MemberId, Membership};
use gemel_pair::shell::{Arbiter, EtcdArbiter};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Etcd {
    data: TempDir,
    client: u16,
    peer: u16,
    running: Option<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Etcd {
    /// One that answers, or `None` (said) where it is not installed.
    fn start() -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
        {
            println!("skipped: there is no etcd here (apt-get install etcd-server)");
            return None;
        }
        let data = tempfile::tempdir().unwrap();
        let mut etcd = Self { data, client: free_port(), peer: free_port(), running: None };
        etcd.run();
        Some(etcd)
    }

    fn run(&mut self) {
        let (client, peer) = (self.url(), format!("http://127.0.0.1:{}", self.peer));
        let child = Command::new("etcd")
            .args(["--name", "one", "--data-dir"])
            .arg(self.data.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.running = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.arbiter().read("nobody").is_err() {
            assert!(Instant::now() < deadline, "etcd does not answer on {client}");
            sleep(Duration::from_millis(50));
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client)
    }

    fn arbiter(&self) -> EtcdArbiter {
        EtcdArbiter::new(vec![self.url()])
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn alone(epoch: u64, leader: u64) -> Membership {
    Membership::new(epoch, MemberId(leader), [])
}

#[test]
fn the_register_goes_step_by_step_and_outlives_its_etcd() {
    let Some(mut etcd) = Etcd::start() else { return };
    let arbiter = etcd.arbiter();
    assert_eq!(arbiter.read("vm").unwrap(), None);
    assert_eq!(arbiter.change("vm", &alone(9, 1)).unwrap(), Changed::Done, "nothing was there");
    assert_eq!(arbiter.change("vm", &alone(9, 1)).unwrap(), Changed::Done, "asked again");
    assert_eq!(arbiter.change("vm", &alone(9, 2)).unwrap(), Changed::Refused(alone(9, 1)));
    assert_eq!(
        arbiter.change("vm", &alone(11, 2)).unwrap(),
        Changed::Refused(alone(9, 1)),
        "a step left out"
    );
    let pair = Membership::new(10, MemberId(1), [MemberId(u64::MAX)]);
    assert_eq!(arbiter.change("vm", &pair).unwrap(), Changed::Done);
    assert_eq!(arbiter.read("vm").unwrap(), Some(pair.clone()), "also where the number of digits rises");
    assert_eq!(arbiter.change("vm", &alone(9, 1)).unwrap(), Changed::Refused(pair.clone()), "it went on");
    assert_eq!(arbiter.read("v").unwrap(), None, "another VM");
    assert_eq!(arbiter.change("vm-2", &alone(1, 7)).unwrap(), Changed::Done, "another VM");

    etcd.kill();
    assert!(arbiter.read("vm").is_err(), "away is no verdict");
    assert!(arbiter.change("vm", &alone(11, 1)).is_err(), "away is no verdict");
    etcd.run();
    assert_eq!(arbiter.read("vm").unwrap(), Some(pair));
    assert_eq!(arbiter.change("vm", &alone(11, 1)).unwrap(), Changed::Done);
    // A cluster's member that is away is passed over.
    let two = EtcdArbiter::new(vec![format!("http://127.0.0.1:{}", free_port()), etcd.url()]);
    assert_eq!(two.read("vm").unwrap(), Some(alone(11, 1)));
}

#[test]
fn of_many_changes_at_once_one_is_made() {
    let Some(etcd) = Etcd::start() else { return };
    for epoch in 1..10 {
        let changes: Vec<_> = (0..4)
            .map(|leader| {
                let arbiter = etcd.arbiter();
                thread::spawn(move || arbiter.change("vm", &alone(epoch, leader)).unwrap())
            })
            .collect();
        let answers: Vec<_> = changes.into_iter().map(|t| t.join().unwrap()).collect();
        assert_eq!(answers.iter().filter(|a| **a == Changed::Done).count(), 1, "epoch {epoch}");
        let held = etcd.arbiter().read("vm").unwrap().unwrap();
        assert!(answers.iter().all(|a| *a == Changed::Done || *a == Changed::Refused(held.clone())));
    }
}

#[test]
fn what_is_no_etcd_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
        }
    });
    let arbiter = EtcdArbiter::new(vec![url]);
    assert!(arbiter.read("vm").is_err());
    assert!(arbiter.change("vm", &alone(1, 1)).is_err());
}
