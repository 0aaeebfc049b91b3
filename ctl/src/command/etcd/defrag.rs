//! `etcd defrag`.

use clap::Args;
use muster_proto::wire::operator::{EtcdDefragReply, EtcdDefragRequest};
use serde::Serialize;

use super::size;
use crate::connect::{Api, Kind};
use crate::failure::Failure;
use crate::output::{Output, View};

/// Give back the unused space of one member's database; it answers nothing meanwhile
#[derive(Debug, Args)]
pub(crate) struct Defrag {}

impl Defrag {
    pub(crate) async fn run(self, api: &mut Api, out: &mut Output<'_>) -> Result<(), Failure> {
        let what = "defragment etcd's database";
        let EtcdDefragReply { size_before, size_after } = api
            .call(Kind::Once, what, EtcdDefragRequest {}, async |client, request| {
                client.etcd_defrag(request).await
            })
            .await?;
        Ok(out.show(&Defragmented { size_before, size_after })?)
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Defragmented {
    size_before: u64,
    size_after: u64,
}

impl View for Defragmented {
    fn text(&self) -> String {
        format!("Defragmented: {} before, {} after.", size(self.size_before), size(self.size_after))
    }
}
