//! Disks and files: faults under a running cluster, damaged files, power cuts.

mod damaged_files;
mod disk_faults;
mod power_cut_files;
mod power_cut_store;
mod store_faults;
