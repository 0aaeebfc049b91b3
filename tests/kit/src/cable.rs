//! UDP path between two nodes that can be cut like a partition: packets are lost without an error.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Forwards one dialler's packets from `address` to the target, and back.
#[derive(Debug)]
pub struct Cable {
    pub address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Cable {
    pub async fn to(target: SocketAddr) -> Self {
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        far.connect(target).await.unwrap();
        let address = near.local_addr().unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(near, far, Arc::clone(&is_cut)));
        Self { address, is_cut, _tasks: tasks }
    }

    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    pub fn heal(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

async fn forward(near: UdpSocket, far: UdpSocket, is_cut: Arc<AtomicBool>) {
    let (mut there, mut back) = (vec![0; 2048], vec![0; 2048]);
    let mut dialler = None;
    loop {
        tokio::select! {
            received = near.recv_from(&mut there) => {
                let Ok((length, from)) = received else { continue };
                dialler = Some(from);
                if !is_cut.load(Ordering::SeqCst) {
                    far.send(&there[..length]).await.ok();
                }
            }
            received = far.recv(&mut back) => {
                let (Ok(length), Some(dialler)) = (received, dialler) else { continue };
                if !is_cut.load(Ordering::SeqCst) {
                    near.send_to(&back[..length], dialler).await.ok();
                }
            }
        }
    }
}
