//! Compiles the messages without a `protoc`: protox parses, prost generates.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "proto/muster/hello/v1/hello.proto",
        "proto/muster/node/v1/node.proto",
        "proto/muster/operator/v1/operator.proto",
    ];
    let contract = protox::compile(files, ["proto"])?;
    prost_build::Config::new().include_file("messages.rs").compile_fds(contract)?;
    Ok(())
}
