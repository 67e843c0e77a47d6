//! Segmentation, interrupts, far transfers, task switches, debug registers: what the manuals' operation sections say,
//! on small guests put together by hand.
//!
//! Not responsible for: integer results (`host_integer`), paging by itself.
#![allow(clippy::unwrap_used)] // tests

mod board;
mod debug;
mod decimal;
mod exits;
mod float_error;
mod long;
mod paging;
mod protected;
mod real;
mod registers;
mod task;
mod v86;
