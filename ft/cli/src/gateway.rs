//! `gemel net`: the gateway of guests that live on pairs, a switch with the user-mode network on one of its ports.
//!
//! Not responsible for: exactly-once (`gemel-pair`), the network behind it (`gemel-net`).

use crate::net::user_network;
use crate::trust::TrustOptions;
use anyhow::{Result, bail};
use gemel_net::{Config, Forward, Network, Switch, To, host_resolver};
use gemel_pair::protocol::NicFrame;
use gemel_pair::shell::{Address, Gateway, Wire};
use std::collections::BTreeSet;
use std::net::SocketAddrV4;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::park;

/// Options of `gemel net`.
#[derive(clap::Args)]
pub struct Args {
    /// Where the sides of pairs find the gateway (their --gateway): HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    listen: Address,
    /// Connections to a port of this host go to a guest: tcp:[ADDRESS]:PORT-[GUEST]:PORT; repeatable
    #[arg(long, value_name = "FORWARD")]
    hostfwd: Vec<Forward>,
    /// Where the guests' questions to the DNS server 10.0.2.3 go, instead of the host's own resolver
    #[arg(long, value_name = "ADDRESS:PORT")]
    resolver: Option<SocketAddrV4>,
    #[command(flatten)]
    trust: TrustOptions,
}

/// Interfaces of guests that are known to the switch; a guest's broadcasts reach so many others.
const MAX_PORTS: usize = 512;

/// A port of the switch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Port {
    Outside,
    Guest { vm: String, nic: u8 },
}

#[derive(Default)]
struct Switchboard {
    switch: Mutex<(Switch<Port>, BTreeSet<Port>)>,
    network: OnceLock<Network>,
    gateway: OnceLock<Weak<Gateway>>,
}

impl Switchboard {
    fn arrived(&self, from: &Port, frame: Vec<u8>) {
        let to: Vec<Port> = {
            // Whoever panicked with it locked left no more than an address unlearned.
            let mut switch = self.switch.lock().unwrap_or_else(PoisonError::into_inner);
            let (switch, ports) = &mut *switch;
            if ports.len() < MAX_PORTS && !ports.contains(from) {
                ports.insert(from.clone());
            }
            match switch.forward(from, &frame) {
                To::Port(port) => vec![port],
                To::Others => ports.iter().filter(|port| *port != from).cloned().collect(),
                To::None => Vec::new(),
            }
        };
        for port in to {
            self.send(&port, frame.clone());
        }
    }

    fn send(&self, to: &Port, frame: Vec<u8>) {
        match to {
            Port::Outside => self.network.get().into_iter().for_each(|network| network.send(frame.clone())),
            Port::Guest { vm, nic } => {
                if let Some(gateway) = self.gateway.get().and_then(Weak::upgrade) {
                    gateway.send(vm, (*nic, frame));
                }
            }
        }
    }
}

struct Guests(Arc<Switchboard>);

impl Wire for Guests {
    fn frames(&self, vm: &str, frames: Vec<NicFrame>) {
        for (nic, frame) in frames {
            self.0.arrived(&Port::Guest { vm: vm.to_owned(), nic }, frame);
        }
    }

    fn went_live(&self, vm: &str, epoch: u64) {
        eprintln!("gemel: VM '{vm}' lives in epoch {epoch}");
    }
}

/// Serves until it is killed: it holds nothing that a guest could not do without, except the connections of others to it.
///
/// # Errors
/// Addresses that cannot be listened on.
pub fn run(args: Args) -> Result<ExitCode> {
    let config = Config { forwards: args.hostfwd, resolver: args.resolver.or_else(host_resolver) };
    let board = Arc::new(Switchboard::default());
    // The network's port is there before any guest's, so that a first broadcast finds it.
    board.switch.lock().unwrap_or_else(PoisonError::into_inner).1.insert(Port::Outside);
    let outward = Arc::clone(&board);
    let network = user_network(&config, move |frame| {
        if let Some(frame) = frame.take() {
            outward.arrived(&Port::Outside, frame);
        }
    })?;
    let (gateway, at) =
        Gateway::listen(&args.listen, &args.trust.trust()?, Box::new(Guests(Arc::clone(&board))))?;
    if board.network.set(network).is_err() || board.gateway.set(Arc::downgrade(&gateway)).is_err() {
        bail!("the gateway was started twice");
    }
    eprintln!("gemel: the gateway listens on {at}");
    loop {
        park();
    }
}
