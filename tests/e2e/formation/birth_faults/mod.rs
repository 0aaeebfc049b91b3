//! Founders that die, and networks that break, at every step of a birth: real processes, real etcd,
//! and never two clusters for one token. The steps are the fail points of `discovery`'s birth.
//!
//! `MUSTER_BIRTH_MATRIX=1` (tests/soak.sh) tries every place with every founder in every way; without
//! it most places are tried, and the ways and founders are spread over them.

mod copied_disks;
mod fail_points;
mod founders;
mod kills;
mod matrix;
mod partitions;
mod refusals;
mod settling;
mod split;
