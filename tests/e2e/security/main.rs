//! Attackers and secrets: permissions, attacks, floods, stock tools, the search for leaked secrets.

mod access;
mod attacks;
mod calls;
mod etcd_access;
mod floods;
mod secrets;
mod stock_tools;
