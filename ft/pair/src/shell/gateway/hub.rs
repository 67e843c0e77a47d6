//! The gateway's links to all sides of all VMs that it serves.
//!
//! Not responsible for: what becomes of frames ([`Wire`]).

use crate::protocol::{FromSide, GatewayAction, GatewayClient, GatewayEvent, NicFrame, SideId, ToSide};
use crate::shell::address::Address;
use crate::shell::connection::{Outgoing, attend, spawn};
use crate::shell::error::PairError;
use crate::shell::listener::Listener;
use crate::shell::stream::Stream;
use crate::shell::trust::Trust;
use crossbeam::channel::unbounded;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

/// VMs that one gateway serves.
const MAX_VMS: usize = 64;
/// Connections of sides at one time.
const MAX_SIDES: usize = 256;
/// The longest name of a VM.
const MAX_NAME: usize = 255;

/// Where the guests' frames go.
pub trait Wire: Send + Sync {
    /// Frames of a VM's guest, each once and in order. May call [`Gateway::send`].
    fn frames(&self, vm: &str, frames: Vec<NicFrame>);

    /// A side of a VM is live in this epoch from now on.
    fn went_live(&self, vm: &str, epoch: u64);
}

#[derive(Default)]
struct Vm {
    client: GatewayClient,
    sides: BTreeMap<SideId, Outgoing<ToSide>>,
}

/// What there is to do for the wire once nothing is locked.
enum Told {
    Frames(Vec<NicFrame>),
    Live(u64),
}

impl Vm {
    /// Something happened; what is decided first is also sent first, because this VM is locked.
    fn handle(&mut self, event: GatewayEvent) -> Vec<Told> {
        let mut told = Vec::new();
        for action in self.client.handle(event) {
            match action {
                GatewayAction::Send(side, message) => {
                    if let Some(outgoing) = self.sides.get(&side) {
                        outgoing.send(&message);
                    }
                }
                GatewayAction::Close(side) => {
                    if let Some(outgoing) = self.sides.get(&side) {
                        outgoing.close();
                    }
                }
                GatewayAction::Frames(frames) => told.push(Told::Frames(frames)),
                GatewayAction::Live(_, epoch) => told.push(Told::Live(epoch)),
            }
        }
        told
    }
}

#[derive(Default)]
struct State {
    vms: BTreeMap<String, Vm>,
    /// Sides that have not said who they are.
    nameless: BTreeMap<SideId, Outgoing<ToSide>>,
}

/// A gateway that listens for sides.
pub struct Gateway {
    state: Mutex<State>,
    wire: Box<dyn Wire>,
}

impl Gateway {
    /// Listens on an address for the sides of any VM that `trust` lets in. Also returns where, with the port that the host chose if it
    /// was to choose one.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub fn listen(
        address: &Address,
        trust: &Trust,
        wire: Box<dyn Wire>,
    ) -> Result<(Arc<Self>, Address), PairError> {
        let listener = address.listen(trust)?;
        let at = listener.address(address);
        let gateway = Arc::new(Self { state: Mutex::default(), wire });
        let accepting = Arc::clone(&gateway);
        spawn("sides", move || accepting.accept_all(&listener))?;
        Ok((gateway, at))
    }

    /// A frame for a VM's guest. Without a VM of that name, or without room, it is lost.
    pub fn send(&self, vm: &str, frame: NicFrame) {
        if let Some(vm) = self.state.lock().vms.get_mut(vm) {
            // Frames for a guest ask nothing of the wire.
            vm.handle(GatewayEvent::Frame(frame));
        }
    }

    fn accept_all(self: &Arc<Self>, listener: &Listener) {
        for side in 0.. {
            match listener.accept() {
                Ok(stream) => self.attend(side, stream),
                // Too many open files, most likely: sides come again.
                Err(_) => sleep(Duration::from_millis(50)),
            }
        }
    }

    fn attend(self: &Arc<Self>, side: SideId, stream: Stream) {
        let (hearing, closing) = (Arc::clone(self), Arc::clone(self));
        let (ready, wait) = unbounded::<()>();
        let vm: Arc<Mutex<Option<String>>> = Arc::default();
        let of = Arc::clone(&vm);
        let on_message = move |message| {
            // Not before it is known where answers go.
            let _ = wait.recv();
            hearing.message(side, &mut vm.lock(), message)
        };
        let on_close = move || closing.closed(side, of.lock().as_deref());
        if let Ok(outgoing) = attend(stream, "side", on_message, on_close) {
            let mut state = self.state.lock();
            let sides = state.nameless.len() + state.vms.values().map(|vm| vm.sides.len()).sum::<usize>();
            if sides < MAX_SIDES {
                state.nameless.insert(side, outgoing);
            }
        }
        drop(ready);
    }

    /// `false` ends the connection.
    fn message(&self, side: SideId, of: &mut Option<String>, message: FromSide) -> bool {
        let mut state = self.state.lock();
        if let (None, FromSide::Attach { vm, .. }) = (&*of, &message) {
            let Some(outgoing) = state.nameless.remove(&side) else { return false };
            state.vms.retain(|_, vm| !vm.sides.is_empty() || vm.client.has_history());
            let room = state.vms.len() < MAX_VMS || state.vms.contains_key(vm);
            if vm.len() > MAX_NAME || !room {
                outgoing.send(&ToSide::Refused("this gateway serves no more VMs".into()));
                outgoing.close();
                return false;
            }
            state.vms.entry(vm.clone()).or_default().sides.insert(side, outgoing);
            *of = Some(vm.clone());
        }
        let Some(name) = of else { return false };
        let told = state.vms.get_mut(name).map(|vm| vm.handle(GatewayEvent::Message(side, message)));
        drop(state);
        for told in told.unwrap_or_default() {
            match told {
                Told::Frames(frames) => self.wire.frames(name, frames),
                Told::Live(epoch) => self.wire.went_live(name, epoch),
            }
        }
        true
    }

    fn closed(&self, side: SideId, of: Option<&str>) {
        let mut state = self.state.lock();
        state.nameless.remove(&side);
        if let Some(vm) = of.and_then(|name| state.vms.get_mut(name)) {
            vm.sides.remove(&side);
            vm.handle(GatewayEvent::Closed(side));
        }
    }
}
