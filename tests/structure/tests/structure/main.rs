//! The source tree obeys the rules of `CONTRIBUTING.md`: no import cycles, crates in layers, sizes,
//! prose, references that resolve, and a contract that stays compatible.

mod contract;
mod cycles;
mod fuzzing;
mod layers;
mod prose;
mod references;
