//! A side's link to the gateway.
//!
//! Not responsible for: the other end (`hub`).

use crate::protocol::{Event, FromSide};
use crate::shell::address::Address;
use crate::shell::connection::{Outgoing, attend, spawn};
use crate::shell::error::PairError;
use crate::shell::side::Side;
use crate::shell::trust::Trust;
use crossbeam::channel::bounded;
use std::io;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

/// How often a gateway that is not there is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// Connects to the gateway once the machine is known, and again whenever the connection breaks. A side that follows does, too: what it
/// needs when it goes live is there already.
///
/// # Errors
/// [`PairError::Thread`], [`PairError::NoKeys`].
pub(in crate::shell) fn keep_connected(
    side: &Arc<Side>,
    address: &Address,
    trust: &Trust,
) -> Result<(), PairError> {
    trust.check(address)?;
    let (side, address, trust) = (Arc::clone(side), address.clone(), trust.clone());
    spawn("gateway", move || {
        if !side.wait_started() {
            return;
        }
        while !side.must_stop() {
            match address.connect(&trust) {
                Ok(stream) => {
                    let (hearing, closing) = (Arc::clone(&side), Arc::clone(&side));
                    let (gone, wait) = bounded::<()>(1);
                    let on_message = move |message| {
                        hearing.event(Event::Gateway(message));
                        true
                    };
                    let on_close = move || {
                        closing.gateway_closed();
                        drop(gone);
                    };
                    let outgoing: Result<Outgoing<FromSide>, _> =
                        attend(stream, "gateway", on_message, on_close);
                    if let Ok(outgoing) = outgoing {
                        side.set_gateway(outgoing);
                        let _ = wait.recv();
                    }
                }
                // One that is not there is nothing to tell of; one that is somebody else is.
                Err(why) if matches!(why.kind(), io::ErrorKind::InvalidData | io::ErrorKind::TimedOut) => {
                    trust.complaints().say(&address.to_string(), &why.to_string());
                }
                Err(_) => {}
            }
            sleep(RETRY);
        }
    })
}
