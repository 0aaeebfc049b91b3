//! UDP path between two nodes that can be cut like a partition: packets are lost without an error.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// Forwards one dialler's packets from `address` to the target, and back.
#[derive(Debug)]
pub struct Cable {
    /// Address to dial instead of the target's.
    pub address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Cable {
    /// Opens a path to the target.
    pub async fn to(target: SocketAddr) -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into(), target).await
    }

    /// Like [`Self::to`], with both ends on this local address.
    pub async fn on(local: IpAddr, target: SocketAddr) -> Self {
        let near = UdpSocket::bind((local, 0)).await.unwrap();
        let far = UdpSocket::bind((local, 0)).await.unwrap();
        far.connect(target).await.unwrap();
        let address = near.local_addr().unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(near, far, Arc::clone(&is_cut)));
        Self { address, is_cut, _tasks: tasks }
    }

    /// Drops all packets from now on, in both directions.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    /// Forwards packets again.
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
