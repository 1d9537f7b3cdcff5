// Tensors in order of falling alignment, so that each begins on a multiple of its element; spaces after the header do
// the same for the first.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "monoid/core/atomic_file.h"
#include "monoid/core/safetensors.h"
#include "monoid/core/safetensors_format.h"

namespace monoid {
namespace {

using namespace safetensors;
using Json = nlohmann::json;

constexpr size_t kDataAlignment = 256;

using NamedTensor = std::pair<const std::string, Tensor>;

std::string json_text(const Source& source, const std::string& text) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    source.refused("the name or metadata ", shown(text), " is not UTF-8; rename it");
  }
}

std::string header_text(const Source& source, const std::vector<const NamedTensor*>& ordered,
                        std::map<std::string, std::string> metadata) {
  metadata.try_emplace("format", "pt");
  std::string header = str("{\"", kMetadata, "\":{");
  for (const char* comma = ""; const auto& [key, value] : metadata) {
    header += str(comma, json_text(source, key), ":", json_text(source, value));
    comma = ",";
  }
  header += '}';
  size_t offset = 0;
  for (const NamedTensor* named : ordered) {
    const auto& [name, tensor] = *named;
    header += str(',', json_text(source, name), ":{\"dtype\":\"", file_type_name(tensor.dtype()), "\",\"shape\":[");
    for (int axis = 0; axis < tensor.rank(); ++axis) header += str(axis ? "," : "", tensor.size(axis));
    header += str("],\"data_offsets\":[", offset, ',', offset + tensor.bytes(), "]}");
    offset += tensor.bytes();
  }
  header += '}';
  const size_t start = (kLengthBytes + header.size() + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
  header.resize(start - kLengthBytes, ' ');
  if (header.size() > kMaxHeader)
    source.refused("the header has ", header.size(), " bytes, over the format's limit of ", kMaxHeader,
                   "; split the tensors over several files");
  return header;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, const SafeTensors& content) {
  const Source source(path);
  std::vector<const NamedTensor*> ordered;
  for (const NamedTensor& named : content.tensors) {
    if (named.first == kMetadata) source.refused("a tensor cannot be named '", kMetadata, "'; rename it");
    if (!named.second.defined()) source.refused("tensor ", shown(named.first), " is undefined; leave it out");
    ordered.push_back(&named);
  }
  std::stable_sort(ordered.begin(), ordered.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return size_of(a->second.dtype()) > size_of(b->second.dtype());
  });
  const std::string header = header_text(source, ordered, content.metadata);
  const uint64_t length = header.size();
  AtomicFile file(path);
  file.write(&length, sizeof(length));
  file.write(header);
  for (const NamedTensor* named : ordered) {
    Tensor host = named->second.to(kCpu);
    if (!host.is_contiguous()) host = host.clone();
    file.write(host.raw(), host.bytes());
  }
  file.commit();
}

}  // namespace monoid
