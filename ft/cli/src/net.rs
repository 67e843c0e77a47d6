//! The networks that `--net` names.
//!
//! Not responsible for: the backends (`gemel-host`, `gemel-net`), what frames mean to a recording.

use crate::options::{Clock, MachineOptions};
use anyhow::{Result, bail};
use gemel_host::net::{Backend, NetKind, Port};
use gemel_host::{Inbox, NetSpec, Nics};
use gemel_machine::NicSpec;
use gemel_net::{Config, NetError, Network, host_resolver};
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
        match &spec.kind {
            NetKind::User { hostfwd } => backends.push(user(hostfwd, Port::new(inbox, number))?),
            NetKind::Gateway => {
                bail!("--net gateway is a pair's: give it to gemel primary and secondary, with --gateway")
            }
            _ => {}
        }
        backends.extend(spec.open(number, inbox)?);
    }
    Ok(Nics::new(backends))
}

/// The user-mode network as an interface's other end.
struct User(Network);

impl Backend for User {
    fn send(&mut self, frame: Vec<u8>) {
        self.0.send(frame);
    }

    fn room(&mut self) {
        self.0.wake();
    }
}

fn user(hostfwd: &[String], port: Port) -> Result<Box<dyn Backend>> {
    let forwards = hostfwd.iter().map(|text| text.parse()).collect::<Result<_, NetError>>()?;
    let config = Config { forwards, resolver: host_resolver() };
    Ok(Box::new(User(user_network(&config, move |frame| port.offer(frame))?)))
}

/// Starts the user-mode network and tells where its forwards listen.
///
/// # Errors
/// An address that cannot be listened on.
pub fn user_network(
    config: &Config,
    deliver: impl FnMut(&mut Option<Vec<u8>>) + Send + 'static,
) -> Result<Network, NetError> {
    let network = Network::start(config, deliver)?;
    for (forward, at) in config.forwards.iter().zip(network.listens_on()) {
        eprintln!("gemel: {at} leads to {} of the guest", forward.guest);
    }
    Ok(network)
}

/// Checks that the interfaces of a pair are its gateway's: they have no other end here, because the pair takes their frames out of the
/// machine's world itself.
///
/// # Errors
/// Networks that one side could not go on with when the other is gone.
pub fn check_pair(specs: &[NetSpec], has_gateway: bool) -> Result<()> {
    if specs.iter().any(|spec| spec.kind != NetKind::Gateway) {
        bail!(
            "--net: the interfaces of a pair are of its gateway: --net gateway[,mac=..] with --gateway ADDR (gemel net)"
        );
    }
    if specs.is_empty() == has_gateway {
        bail!("--net gateway and --gateway ADDR go together");
    }
    Ok(())
}
