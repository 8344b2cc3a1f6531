#!/bin/sh
# What a virtual server does: the way from README, with cgroup version 2 alone. Each step is a line that begins with STORY.
set -eu
export HOME=/srv PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin
cd "$HOME"
say() { echo "STORY $*"; }
ended() {
  code=$?
  [ "$code" = 0 ] && return
  pilothouse status || true
  pilothouse logs --tail 15 || true
  cat /var/lib/pilothouse/pilothouse/machines/*/console.log | tail -40 || true
  pilothouse doctor || true
  say "failed with $code"
}
trap ended EXIT
# What a platform may leave on a machine.
footprint() {
  ip -o link | cut -d: -f2
  nft list tables
  ip netns
  cut -d' ' -f5 /proc/self/mountinfo | sort
  find /sys/fs/cgroup -type d -name 'pilothouse*'
  sysctl -n vm.overcommit_memory kernel.panic kernel.panic_on_oops
}

say "booted $(uname -r)"
[ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]
if grep -q ' - cgroup ' /proc/self/mountinfo; then exit 1; fi
say "cgroup version 2 alone: $(cat /sys/fs/cgroup/cgroup.controllers)"
footprint > before

pilothouse up --detach --spares 0
say "up: $(pilothouse status | head -n 4 | tr -s '\n ' ' ')"
eval "$(pilothouse admin env)"
pilothouse cluster create demo --wait
say "cluster created"
pilothouse kubeconfig demo --out demo.kubeconfig
export KUBECONFIG=demo.kubeconfig
kubectl get ns
say "kubectl answers"
timeout 900 pilothouse pool create web --cluster demo --kind local --count 1 --wait
say "pool ready"
kubectl get nodes -o wide
# The namespace's account is there a moment after the namespace.
until kubectl get serviceaccount default; do sleep 1; done
kubectl run sh --image=pilothouse.local/busybox:1.35.0 --image-pull-policy=Never --restart=Never -- sleep 100000
kubectl wait --for=condition=Ready pod/sh --timeout=900s
say "pod runs: $(kubectl exec sh -- cat /proc/self/uid_map | tr -s ' ')"
kubectl wait --for=condition=Available -n kube-system deployment/coredns --timeout=900s
kubectl exec sh -- nslookup kubernetes.default.svc.cluster.local
say "DNS answers"
# Isolated: root of the pod's machine is nobody here.
kubectl exec sh -- cat /proc/self/uid_map | grep -qv '^ *0 *0 '
kubectl delete pod sh --now
pilothouse pool delete web --cluster demo --yes --wait
say "pool deleted"
pilothouse cluster delete demo --yes --wait
say "cluster deleted"
pilothouse down --purge --yes
footprint > after
diff before after
say "left as it was"
say done
