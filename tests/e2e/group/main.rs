//! The running group under faults: kills, partitions, clocks, seeded fault schedules.

mod failures;
mod partitions;
mod schedules;
