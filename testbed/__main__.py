"""python -m testbed VERB

build       install Debian's packages and make programs and image; needed once, `up` does it too
up          start the cluster, or what of it has died
add-node    a second node; again: bring it back after lose-node
lose-node   end the second node as a power cut does
fake-nodes  four more nodes with eight GPUs each, that nothing runs on: for scheduling
status      what lives
down        remove the cluster; what `build` made stays
"""

import sys

from testbed import build, cluster, description, nodes, operators
from testbed.layout import KUBECONFIG
from testbed.shell import TestbedError


def main(arguments: list[str]) -> int:
    verb = arguments[0] if len(arguments) == 1 else ""
    try:
        if verb == "build":
            with cluster.alone():
                build.build()
        elif verb == "up":
            with cluster.alone():
                build.build()
            cluster.up()
            print(f"export KUBECONFIG={KUBECONFIG}")
        elif verb in ("add-node", "lose-node", "fake-nodes"):
            with cluster.alone():
                description.state()  # says so where no testbed is up
                {"add-node": nodes.add_node, "lose-node": nodes.lose_node, "fake-nodes": operators.fake_nodes}[verb]()
        elif verb == "status":
            print(cluster.status())
        elif verb == "down":
            cluster.down()
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
