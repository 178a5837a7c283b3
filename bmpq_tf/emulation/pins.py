"""What the emulated arm64 root is made of: versions that were tested, and their SHA-256.

A release of the distribution changes packages now and then (security updates): a newer one that the
distribution's signed index names is taken, and told. Wheels never change.
"""

DISTRIBUTION = ("debian", "12")
# Of the machine's own architecture; everything else is arm64.
EMULATOR = "qemu-user-static"
# By name: the version and the SHA-256 of the package.
PACKAGES: dict[str, tuple[str, str]] = {
    "libatomic1": (
        "12.2.0-14+deb12u1",
        "1693aa13ce2b30d061a519fc28b77b9bab8c8e45804ced5969d99821e1bc2159",
    ),
    "libbz2-1.0": (
        "1.0.8-5+b1",
        "d3a96ece03326498b39ff093a76800dfcbcb1d4049d6ae6e9f6fa1aa7a590ad6",
    ),
    "libc6": (
        "2.36-9+deb12u14",
        "01f4330719fd4f65580e16ea5a0527f372fca750e8f588d26deaf09f2d3b1cf4",
    ),
    "libcrypt1": (
        "1:4.4.33-2",
        "eea0ad76ea5eb507127fea0c291622ea4ecdbb71c4b9a8ed9c76ae33fc1a0127",
    ),
    "libdb5.3": (
        "5.3.28+dfsg2-1",
        "344367608d622298a3d916f4cee3dc3173286f3b21f8f497ab21e7178ba930f9",
    ),
    "libexpat1": (
        "2.5.0-1+deb12u5",
        "4a733e7f636de4a4483e3e5d7b02dc8e788b115361a04dd58df89461ce2ae65a",
    ),
    "libffi8": (
        "3.4.4-1",
        "80b5c36177dc0e29d531c7eddbed3cc7355cb490e49f8cfa5959572d161f27b3",
    ),
    "libgcc-s1": (
        "12.2.0-14+deb12u1",
        "576926b283613db80168ddf76380a3bd877602778cf0d226caa7bfbfa71eacf3",
    ),
    "libgomp1": (
        "12.2.0-14+deb12u1",
        "a48b70dd1a95585466b40bd94564bce56ebcb2566e49ccdb6441e996aaab2098",
    ),
    "liblzma5": (
        "5.4.1-1+deb12u2",
        "36358d245f246234721e6c1c2ee5d11a46c1c877023c63f7570df02cd79964f5",
    ),
    "libncursesw6": (
        "6.4-4",
        "cf32cb6751718872c6def448b82211eec494f688e2f1a3e6c71bfdaf6b0722c5",
    ),
    "libnsl2": (
        "1.3.0-2",
        "8f9ba58b219779b43c4ccc78c79b0a23f721fc96323c202abb31e02f942104b3",
    ),
    "libpython3.11-minimal": (
        "3.11.2-6+deb12u9",
        "dd9847d2f77c5a924b1d3dd953b81f161db9374c94d03b9216191925350928c3",
    ),
    "libpython3.11-stdlib": (
        "3.11.2-6+deb12u9",
        "9937cbe3f647aa89a590fec647438ce02098c113d1c6f70e4cb1230c368d42a4",
    ),
    "libreadline8": (
        "8.2-1.3",
        "f3b162b7c1e05430607e792ebdbfc417cbd1f1d32cf83664133ae63d811a72d2",
    ),
    "libsqlite3-0": (
        "3.40.1-2+deb12u2",
        "a690f7f2aa6435bd1fd7cbbd2216acb9acbb8c48c9721f2c195766375439eb13",
    ),
    "libssl3": (
        "3.0.22-1~deb12u2",
        "3d04ecd8d0f57fed50d205abaeedfcc84c1960073ea085719c00add44b0ccd7f",
    ),
    "libstdc++6": (
        "12.2.0-14+deb12u1",
        "26e138c677a985775331373828a6c286c551ff397cb735d00e2383cb273d1cb2",
    ),
    "libtinfo6": (
        "6.4-4",
        "baef0f6776f84c7eed4f1146d6e5774689567dad43216894d41da02e6608e4b3",
    ),
    "libtirpc3": (
        "1.3.3+ds-1",
        "deaf9ea54f74cab6690b4bc0b427f05cbe62cc073580d84f5f18a8d9e2ece401",
    ),
    "libuuid1": (
        "2.38.1-5+deb12u3",
        "3b2d19df0f3190108cf54228c4cfc822226c06d8f3615a5ab16a7dffb1f58aed",
    ),
    "media-types": (
        "10.0.0",
        "aaa46dcb3b39948ae2e0fdb72cfcb2f48c0b59f19785a3da8045c05eb19955dd",
    ),
    "python3.11": (
        "3.11.2-6+deb12u9",
        "f8d1726c2f5c61b42dbf7652cd9c01da23e55029e3c384a9f1802334fd964091",
    ),
    "python3.11-minimal": (
        "3.11.2-6+deb12u9",
        "617855dbf3299e03873926c75d61feaf3d36924586aecc1951a0b965a95bc694",
    ),
    "qemu-user-static": (
        "1:7.2+dfsg-7+deb12u18+b3",
        "c3e3ba2bd87f8c5b9a5da5ef21b5a3b82d7c63b89dd448d9ddaa4eabc5b6e402",
    ),
    "zlib1g": (
        "1:1.2.13.dfsg-1",
        "52b8b8a145bbe1956bba82034f77022cbef0c3d0885c9e32d9817a7932fe1913",
    ),
}
# By requirement: the SHA-256 of the wheel for Python 3.11 on aarch64.
PYTHON = "3.11"
PLATFORMS = (
    "manylinux_2_27_aarch64",
    "manylinux_2_28_aarch64",
    "manylinux_2_17_aarch64",
    "manylinux2014_aarch64",
)
WHEELS: dict[str, str] = {
    "ai-edge-litert==2.3.0": "853fc608f96da87bd5f3458465dfb9abbf18d5ae6b94eceacead407146f175ae",
    "flatbuffers==25.12.19": "7634f50c427838bb021c2d66a3d1168e9d199b0607e6329399f04846d42e20b4",
    "numpy==2.4.6": "0ab0a9c4ffb1a6d95ef519fe4247dba8eb6b18ad93999f76b7f657039acabd47",
}
