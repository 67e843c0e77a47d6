//! Harness of the whole-system tests: builds guests, runs the `gemel` binary within bounded time, and judges what came out.
//!
//! Not responsible for any expectation about one guest or role: those stand in `tests/`. Not responsible for the emulator
//! either: everything here sees it from outside, as a user does, so that no crate of the product is linked in.

pub mod child;
pub mod engine;
pub mod gemel;
pub mod guest;
pub mod kernel;
pub mod pair;
pub mod results;
pub mod services;
pub mod terminal;
pub mod typist;

use std::path::PathBuf;

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
