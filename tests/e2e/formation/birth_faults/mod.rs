//! Killed founders and broken networks at every step of a birth, with real processes and real etcd.
//! One token must never have two clusters. The steps are the fail points of the birth.
//!
//! `MUSTER_BIRTH_MATRIX=1` (tests/soak.sh) runs every fail point with every founder in every way.
//! Without it most points run once, with founders and ways distributed over them.

mod copied_disks;
mod fail_points;
mod founders;
mod kills;
mod matrix;
mod partitions;
mod refusals;
mod settling;
mod split;
