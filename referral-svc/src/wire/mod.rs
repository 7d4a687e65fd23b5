//! Between the contract's messages and the domain's types, both ways, without a side effect.
//!
//! Inwards every field is checked, and a fault names it; outwards nothing can fail.

pub(crate) mod event;
pub(crate) mod fields;
pub(crate) mod inward;
pub(crate) mod outward;
pub(crate) mod page;
pub(crate) mod statement;
pub(crate) mod statement_lines;
