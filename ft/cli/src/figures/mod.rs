//! What the sides of a pair tell about themselves, watched, exported and reckoned with.
//!
//! Not responsible for: the figures (`gemel-pair`'s report is the one place where they are made).

pub mod estimate;
pub mod metrics;
mod sides;
pub mod top;
mod words;
