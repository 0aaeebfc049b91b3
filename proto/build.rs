//! Compiles the contract without a `protoc`: protox parses, tonic generates.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "proto/muster/hello/v1/hello.proto",
        "proto/muster/node/v1/node.proto",
        "proto/muster/operator/v1/operator.proto",
    ];
    let contract = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .include_file("contract.rs")
        .compile_fds(contract)?;
    Ok(())
}
