//! A leader with fewer secondaries than it wants looks for the next.
//!
//! Not responsible for: whether it wants one (`protocol`), copying the machine there (`clone`).

use super::connection::{attend, spawn};
use super::error::PairError;
use super::side::Side;
use super::trust::Trust;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

/// How often the next of the list is tried.
const INTERVAL: Duration = Duration::from_millis(200);

/// Connects to one standby after the other, as long as the side lives and wants one.
pub(super) fn look_for_standbys(side: &Arc<Side>, trust: &Trust) -> Result<(), PairError> {
    let (side, trust) = (Arc::clone(side), trust.clone());
    spawn("standbys", move || {
        loop {
            sleep(INTERVAL);
            let Some(address) = side.wants_peer().then(|| side.next_standby()).flatten() else { continue };
            // One that is not there may be there the next time.
            let Ok(stream) = address.connect(&trust) else { continue };
            let (hearing, closing, id) = (Arc::clone(&side), Arc::clone(&side), side.name_peer());
            let on_message = move |message| {
                hearing.hear(id, message);
                true
            };
            if let Ok(peer) = attend(stream, "standby", on_message, move || closing.peer_closed(id)) {
                side.add_peer(id, peer);
            }
        }
    })
}
