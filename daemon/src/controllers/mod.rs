//! Controllers: one small loop for each derived thing. Each compares desired and actual state, does
//! what is missing, and sleeps until something changes. A controller is correct from any initial
//! state, even if events are lost or repeated. [`crate::life`] starts them.

pub mod certificate;
pub mod directory;
pub mod etcd;
pub mod founding;
pub mod pace;
pub mod report;
pub mod standing;
pub mod view;
pub mod voters;
