//! Convergence: one small loop for each derived thing. Each reads what is wanted and what is so,
//! does what is missing, and sleeps until something moves; it is right when started from any state,
//! with events lost or repeated. [`crate::compose`] lists them.

pub mod certificate;
pub mod directory;
pub mod etcd;
pub mod founding;
pub mod pace;
pub mod report;
pub mod standing;
pub mod view;
pub mod voters;
