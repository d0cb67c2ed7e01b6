# All images for amd64 and arm64:
#   docker buildx bake -f deploy/docker/docker-bake.hcl --push
# A builder that knows both architectures is needed once: docker buildx create --use.
variable "FEDFLEET_TAG" {
  default = "0.1.0"
}

variable "REGISTRY" {
  # With its slash: "registry.example/team/".
  default = ""
}

variable "TORCH" {
  # May carry options of pip, to take a CPU-only build from an index of your choice.
  default = "torch==2.13.0"
}

group "default" {
  targets = ["central", "gateway", "device", "device-torch"]
}

target "common" {
  context    = "."
  dockerfile = "deploy/docker/Dockerfile"
  platforms  = ["linux/amd64", "linux/arm64"]
  args = {
    TORCH = TORCH
  }
}

target "central" {
  inherits = ["common"]
  target   = "central"
  tags     = ["${REGISTRY}fedfleet/central:${FEDFLEET_TAG}"]
}

target "gateway" {
  inherits = ["common"]
  target   = "gateway"
  tags     = ["${REGISTRY}fedfleet/gateway:${FEDFLEET_TAG}"]
}

target "device" {
  inherits = ["common"]
  target   = "device"
  tags     = ["${REGISTRY}fedfleet/device:${FEDFLEET_TAG}"]
}

target "device-torch" {
  inherits = ["common"]
  target   = "device-torch"
  tags     = ["${REGISTRY}fedfleet/device-torch:${FEDFLEET_TAG}"]
}
