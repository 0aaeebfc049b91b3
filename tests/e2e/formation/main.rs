//! From machines to one cluster: births, faults during a birth, joins and removals.

mod birth;
mod birth_faults;
mod joins;
