//! The calls of the operator API: name, path and roles, as `operator.proto` states them. Does not
//! check an operator's role.

use super::operator::access::Role;

macro_rules! calls {
    ($($name:ident $path:literal: $($role:ident)+;)+) => {
        /// One call of the operator API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum OperatorMethod {
            $($name,)+
        }

        impl OperatorMethod {
            /// Every call, in the order of `operator.proto`.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name of the gRPC method.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// The path of the gRPC method.
            pub const fn path(self) -> &'static str {
                match self {
                    $(Self::$name => $path,)+
                }
            }

            /// The roles that may make the call.
            pub const fn roles(self) -> &'static [Role] {
                match self {
                    $(Self::$name => &[$(Role::$role,)+],)+
                }
            }
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/calls.rs"));
