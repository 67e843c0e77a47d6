//! Fuzzers: what a guest, a disk or a file may contain must never panic, hang, or reach memory that is not the guest's.
//!
//! Not responsible for: whether results are right (`tests/isa`, the crates' own tests), with one exception: what is
//! cached, saved or restored must not be visible, and random programs are good at showing that it is.
//!
//! A run is a list of episodes. Everything in an episode follows from the seed and the episode's number, so these two
//! reproduce a failure.

pub mod cpu;
pub mod devices;
pub mod places;
pub mod rng;
pub mod run;
