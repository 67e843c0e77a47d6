//! The networks that `--net` names.
//!
//! Not responsible for: the backends (`gemel-host`, `gemel-net`), what frames mean to a recording.

use crate::options::{Clock, MachineOptions};
use anyhow::{Result, bail};
use gemel_host::net::{Backend, NetKind, Port};
use gemel_host::{Inbox, NetSpec, Nics};
use gemel_machine::NicSpec;
use gemel_net::{Config, Forward, Network, host_resolver};
use std::sync::Arc;

/// The interfaces of the machine that the options describe.
///
/// # Errors
/// More than the board can have; a clock that no network can keep up with.
pub fn nics(options: &MachineOptions) -> Result<Vec<NicSpec>> {
    if options.clock == Clock::Free && !options.net.is_empty() {
        bail!(
            "--net needs --clock paced: with the free clock a guest's idle time passes at once, every answer from a network would \
             come too late, and a run could not be repeated without a log"
        );
    }
    let mut nics: Vec<NicSpec> = Vec::new();
    for (number, spec) in options.net.iter().enumerate() {
        let Ok(number) = u8::try_from(number) else { bail!("--net is given too often") };
        let mac = spec.mac(number);
        if nics.iter().any(|nic| nic.mac == mac) {
            bail!("two of --net have the same address: give one of them another with mac=");
        }
        nics.push(NicSpec { mac });
    }
    Ok(nics)
}

/// Connects the interfaces.
///
/// # Errors
/// A network that this host does not have.
pub fn connect(specs: &[NetSpec], inbox: &Arc<Inbox>) -> Result<Nics> {
    let mut backends = Vec::new();
    for (number, spec) in specs.iter().enumerate() {
        let number = number as u8;
        if let NetKind::User { hostfwd } = &spec.kind {
            backends.push(Box::new(User::open(hostfwd, Port::new(inbox, number))?) as Box<dyn Backend>);
        }
        backends.extend(spec.open(number, inbox)?);
    }
    Ok(Nics::new(backends))
}

/// The user-mode network behind one interface.
struct User(Network);

impl User {
    fn open(hostfwd: &[String], port: Port) -> Result<Self> {
        let forwards: Vec<Forward> = hostfwd.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let config = Config { forwards, resolver: host_resolver() };
        let network = Network::start(&config, move |frame| port.offer(frame))?;
        for (forward, address) in config.forwards.iter().zip(network.listens_on()) {
            if forward.host.port() == 0 {
                eprintln!("gemel: {address} leads to {} of the guest", forward.guest);
            }
        }
        Ok(Self(network))
    }
}

impl Backend for User {
    fn send(&mut self, frame: Vec<u8>) {
        self.0.send(frame);
    }

    fn room(&mut self) {
        self.0.wake();
    }
}
