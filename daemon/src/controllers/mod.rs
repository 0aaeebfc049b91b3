//! Controllers: one small loop for each derived thing. Each compares desired and actual state, does
//! what is missing, and sleeps until something changes. A controller is correct from any initial
//! state, even if events are lost or repeated. [`crate::member`] starts them.

pub mod certificate;
pub mod cluster_view;
pub mod directory;
pub mod etcd;
pub mod founding;
pub mod membership_check;
pub mod report;
pub mod voters;
