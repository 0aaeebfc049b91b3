//! Generates clients and servers of the three services; their messages are those of
//! `muster-messages`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../messages/proto");
    let files = [
        "muster/hello/v1/hello.proto",
        "muster/node/v1/node.proto",
        "muster/operator/v1/operator.proto",
    ];
    let contract = protox::compile(files, ["../messages/proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .extern_path(".muster.hello.v1", "::muster_messages::hello")
        .extern_path(".muster.node.v1", "::muster_messages::node")
        .extern_path(".muster.operator.v1", "::muster_messages::operator")
        .include_file("services.rs")
        .compile_fds(contract)?;
    Ok(())
}
