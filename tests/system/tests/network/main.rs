//! Guests on networks: each way to connect one, what goes over it, and that a replay, which has no network, does the same.
//!
//! What a host cannot do (no QEMU, no privilege) counts as ignored, with the reason.

mod machine;

use anyhow::{Context, Result, ensure};
use gemel_system_tests::child::{self, Bounded};
use gemel_system_tests::guest::Guest;
use gemel_system_tests::services::{REDIS, Redis, Rows, SQL, WEB, Web};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use machine::{LIMIT, Machine};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

type Test = fn() -> Result<Option<&'static str>>;

/// Each test says why it did not run, if it did not.
const TESTS: &[(&str, Test)] = &[
    ("clients_reach_a_guest_through_forwards", forwards),
    ("two_guests_reach_each_other_on_a_socket", on_a_socket),
    ("a_guest_of_qemu_is_on_the_same_wire", with_qemu),
    ("two_guests_reach_each_other_on_a_bridge", on_a_bridge),
];

fn main() -> ExitCode {
    let trials = TESTS.iter().map(|&(name, test)| {
        Trial::ignorable_test(name, move || match test() {
            Ok(None) => Ok(Completion::Completed),
            Ok(Some(reason)) => Ok(Completion::ignored_with(reason)),
            Err(error) => Err(Failed::from(format!("{error:#}"))),
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn services(net: &str) -> Result<Guest> {
    let mut guest = Guest::obtain("services")?;
    guest.append = format!("{} net={net}", guest.append);
    Ok(guest)
}

fn forwards() -> Result<Option<&'static str>> {
    let forwards = [WEB, REDIS, SQL].map(|port| format!("hostfwd=tcp:127.0.0.1:0-:{port}")).join(",");
    let mut machine = Machine::record(&services("dhcp")?, &format!("user,{forwards}"), None)?;
    machine.boot()?;
    let [web, redis, sql] = [WEB, REDIS, SQL].map(|port| machine.forwarded(port));
    let (mut web, mut redis, mut rows) = (Web::connect(web?)?, Redis::connect(redis?)?, Rows::connect(sql?)?);
    for number in 0..20 {
        web.fetch(if number == 7 { "1m" } else { "64k" })?;
        redis.set(&format!("key{number}"), &format!("value{number}"))?;
        ensure!(rows.commit(&format!("row{number}"))? == number + 1);
    }
    for number in 0..20 {
        let value = redis.get(&format!("key{number}"))?;
        ensure!(value.as_deref() == Some(&*format!("value{number}")), "key{number}: {value:?}");
    }
    ensure!(rows.ask("SELECT count(*) FROM rows;")? == "20");
    // The guest's way out: the host's own loopback is behind the gateway's address.
    machine.ask("ping -c 2 10.0.2.2 >/dev/null; echo $?-$((6 * 7))", "0-42")?;
    machine.power_off_and_replay()?;
    Ok(None)
}

/// Each fetches a file from the other, which has it too.
fn reach_each_other(one: &mut Machine, other: &mut Machine) -> Result<()> {
    one.boot()?;
    other.boot()?;
    for (machine, peer) in [(one, "10.0.0.2"), (other, "10.0.0.1")] {
        machine.ask(&format!("ping -c 3 {peer} >/dev/null; echo $?-$((6 * 7))"), "0-42")?;
        machine.ask(&format!("wget -q -O - http://{peer}/1m | cmp - /www/1m; echo $?-$((6 * 8))"), "0-48")?;
    }
    Ok(())
}

fn on_a_socket() -> Result<Option<&'static str>> {
    let folder = tempfile::tempdir()?;
    let wire = folder.path().join("wire");
    let wire = wire.display();
    let mut one =
        Machine::record(&services("10.0.0.1/24")?, &format!("stream,addr=unix:{wire},server"), None)?;
    let net = format!("stream,addr=unix:{wire},mac=52:54:00:00:00:02");
    let mut other = Machine::record(&services("10.0.0.2/24")?, &net, None)?;
    reach_each_other(&mut one, &mut other)?;
    one.power_off_and_replay()?;
    other.power_off_and_replay()?;
    Ok(None)
}

fn with_qemu() -> Result<Option<&'static str>> {
    if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        return Ok(Some("no qemu-system-x86_64 here"));
    }
    let folder = tempfile::tempdir()?;
    let wire = folder.path().join("wire");
    let mut machine = Machine::record(
        &services("10.0.0.1/24")?,
        &format!("stream,addr=unix:{},server", wire.display()),
        None,
    )?;
    let guest = services("10.0.0.2/24")?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-M",
        "pc",
        "-accel",
        "tcg",
        "-display",
        "none",
        "-no-reboot",
        "-monitor",
        "none",
        "-nic",
        "none",
    ])
    .args(["-serial", "stdio", "-m", &guest.memory.to_string(), "-append", &guest.append])
    .arg("-kernel")
    .arg(guest.kernel())
    .arg("-initrd")
    .arg(guest.initrd())
    .arg("-netdev")
    .arg(format!("stream,id=wire,server=off,addr.type=unix,addr.path={}", wire.display()))
    .args(["-device", "virtio-net-pci,netdev=wire,mac=52:54:00:00:00:02"]);
    let (_qemu, mut peer) = Bounded::start_attached(&mut qemu, LIMIT)?;
    machine.boot()?;
    peer.wait_for("gemel# ", LIMIT)?;
    machine.ask("ping -c 3 10.0.0.2 >/dev/null; echo $?-$((6 * 7))", "0-42")?;
    machine.ask("wget -q -O - http://10.0.0.2/1m | cmp - /www/1m; echo $?-$((6 * 8))", "0-48")?;
    peer.type_text("wget -q -O - http://10.0.0.1/1m | cmp - /www/1m; echo $?-$((6 * 9))\n")?;
    peer.wait_for("0-54", LIMIT)?;
    machine.power_off_and_replay()?;
    Ok(None)
}

/// A network namespace of this test's own.
struct Namespace(String);

impl Namespace {
    fn make() -> Result<Self> {
        let namespace = Self(format!("gemel-{}", std::process::id()));
        ip(&["netns", "add", &namespace.0])?;
        Ok(namespace)
    }

    fn ip(&self, words: &str) -> Result<()> {
        let words: Vec<&str> = ["-n", &self.0].into_iter().chain(words.split(' ')).collect();
        ip(&words)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.0]);
    }
}

fn ip(words: &[&str]) -> Result<()> {
    child::run(Command::new("ip").args(words), Duration::from_secs(20)).map(drop).context("ip")
}

fn on_a_bridge() -> Result<Option<&'static str>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Some("network namespaces need root"));
    }
    if !Path::new("/dev/net/tun").exists() || Command::new("ip").arg("-V").output().is_err() {
        return Ok(Some("no /dev/net/tun or no ip command here"));
    }
    let Ok(namespace) = Namespace::make() else {
        return Ok(Some("this root may not make network namespaces"));
    };
    namespace.ip("link add bridge0 type bridge")?;
    namespace.ip("link set bridge0 up")?;
    for tap in ["tap0", "tap1"] {
        namespace.ip(&format!("tuntap add {tap} mode tap"))?;
        namespace.ip(&format!("link set {tap} master bridge0 up"))?;
    }
    let within = Some(namespace.0.as_str());
    let mut one = Machine::record(&services("10.0.0.1/24")?, "tap,ifname=tap0", within)?;
    let net = "tap,ifname=tap1,mac=52:54:00:00:00:02";
    let mut other = Machine::record(&services("10.0.0.2/24")?, net, within)?;
    reach_each_other(&mut one, &mut other)?;
    one.power_off_and_replay()?;
    other.power_off_and_replay()?;
    Ok(None)
}

/// The address in a message of the form `gemel: ADDRESS leads to GUEST:PORT of the guest`.
fn forwarded(messages: &str, port: u16) -> Option<SocketAddr> {
    let ending = format!(":{port} of the guest");
    let line = messages.lines().find(|line| line.ends_with(&ending))?;
    line.strip_prefix("gemel: ")?.split(' ').next()?.parse().ok()
}
