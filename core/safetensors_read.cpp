// A safetensors file is a little-endian u64 N, N bytes of JSON, then the bytes of the tensors without holes:
// {"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}}.
// The header is judged event by event while it is parsed, so that duplicate keys show and nesting cannot grow; no
// memory is taken for a tensor before its bytes are known to be in the file.

#include <algorithm>
#include <bit>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <system_error>
#include <vector>

#include "monoid/core/safetensors.h"
#include "monoid/core/safetensors_format.h"

namespace monoid {
namespace {

using namespace safetensors;
using Json = nlohmann::json;

struct Entry {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape;
  std::optional<std::vector<uint64_t>> offsets;

  const FileType* type = nullptr;
  Shape extents;
  uint64_t begin() const { return offsets->front(); }
  uint64_t end() const { return offsets->back(); }
};

struct Header {
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;
};

// Takes the parser's events and accepts exactly the grammar above.
class HeaderReader : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderReader(const Source& source) : source_(source) {}

  Header take() { return std::move(header_); }

  bool start_object(size_t) override {
    switch (place_) {
      case Place::start:
        return enter(Place::entries);
      case Place::entries:
        if (key_ == kMetadata) return enter(Place::metadata);
        header_.entries.emplace_back().name = key_;
        return enter(Place::tensor);
      default:
        unexpected("an object");
    }
  }

  bool key(std::string& name) override {
    key_ = std::move(name);
    if (place_ == Place::entries) {
      if (!names_.insert(key_).second) source_.damaged("the header names ", shown(key_), " twice");
    } else if (place_ == Place::metadata) {
      if (header_.metadata.contains(key_)) source_.damaged("the metadata names ", shown(key_), " twice");
    } else if (key_ != "dtype" && key_ != "shape" && key_ != "data_offsets") {
      source_.damaged("tensor ", shown(tensor().name), " has the unknown key ", shown(key_));
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::entries) return enter(Place::end);
    if (place_ == Place::tensor) finish_tensor();
    return enter(Place::entries);
  }

  bool start_array(size_t) override {
    if (place_ != Place::tensor || key_ == "dtype") unexpected("an array");
    const bool is_shape = key_ == "shape";
    set_once(is_shape ? tensor().shape : tensor().offsets, {});
    return enter(is_shape ? Place::shape : Place::offsets);
  }

  bool end_array() override { return enter(Place::tensor); }

  bool number_unsigned(uint64_t value) override {
    if (place_ != Place::shape && place_ != Place::offsets) unexpected(str("the number ", value));
    (place_ == Place::shape ? tensor().shape : tensor().offsets)->push_back(value);
    return true;
  }

  bool string(std::string& value) override {
    if (place_ == Place::metadata) {
      header_.metadata.emplace(key_, std::move(value));
    } else if (place_ == Place::tensor && key_ == "dtype") {
      set_once(tensor().dtype, std::move(value));
    } else {
      unexpected(str("the text ", shown(value)));
    }
    return true;
  }

  bool null() override { unexpected("null"); }
  bool boolean(bool value) override { unexpected(value ? "true" : "false"); }
  bool number_integer(int64_t value) override { unexpected(str("the number ", value)); }
  bool number_float(double, const std::string& text) override { unexpected(str("the number ", shown(text))); }
  bool binary(Json::binary_t&) override { unexpected("binary data"); }

  bool parse_error(size_t position, const std::string&, const Json::exception& error) override {
    const std::string_view text = error.what();
    source_.damaged("the header is not JSON at byte ", position, ": ", shown(text.substr(text.find("] ") + 2)));
  }

 private:
  enum class Place { start, entries, metadata, tensor, shape, offsets, end };

  bool enter(Place place) {
    place_ = place;
    return true;
  }

  Entry& tensor() { return header_.entries.back(); }

  template <class T>
  void set_once(std::optional<T>& field, T value) {
    if (field) source_.damaged("tensor ", shown(tensor().name), " names ", shown(key_), " twice");
    field = std::move(value);
  }

  [[noreturn]] void unexpected(std::string_view what) {
    switch (place_) {
      case Place::start:
        source_.damaged("the header is ", what, ", wanted an object");
      case Place::entries:
        source_.damaged(shown(key_), " is ", what, ", wanted an object");
      case Place::metadata:
        source_.damaged("metadata ", shown(key_), " is ", what, ", wanted text");
      default:
        source_.damaged("tensor ", shown(tensor().name), ": ", shown(key_), " holds ", what,
                        key_ == "dtype" ? ", wanted text" : ", wanted whole numbers from 0 on");
    }
  }

  void finish_tensor() {
    const Entry& entry = tensor();
    const auto missing = [&](const char* what) { source_.damaged("tensor ", shown(entry.name), " has no ", what); };
    if (!entry.dtype) missing("dtype");
    if (!entry.shape) missing("shape");
    if (!entry.offsets) missing("data_offsets");
  }

  const Source& source_;
  Header header_;
  std::set<std::string> names_;
  std::string key_;
  Place place_ = Place::start;
};

// Type, extents and byte count of one tensor, every product checked.
void resolve(Entry& entry, const Source& source) {
  const std::string name = shown(entry.name);
  entry.type = find_type(*entry.dtype);
  if (!entry.type) {
    source.refused("tensor ", name, " has dtype ", shown(*entry.dtype),
                   ", which monoid does not store; convert it to F32, F64, BF16, F16, I32, I64, U8 or BOOL");
  }
  if (entry.shape->size() > static_cast<size_t>(Shape::kMaxRank)) {
    source.refused("tensor ", name, " has rank ", entry.shape->size(), ", over the limit of ", Shape::kMaxRank,
                   "; reshape it before saving");
  }
  // `room` ignores zeros: strides of an empty tensor are products too.
  uint64_t elements = 1, room = std::max<uint64_t>(entry.type->bytes, size_of(entry.type->dtype));
  for (const uint64_t extent : *entry.shape) {
    const bool overflows = __builtin_mul_overflow(room, std::max<uint64_t>(extent, 1), &room);
    if (overflows || room > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      source.damaged("tensor ", name, ": its shape overflows 64 bits");
    elements *= extent;
    entry.extents.push_back(static_cast<int64_t>(extent));
  }
  if (entry.offsets->size() != 2)
    source.damaged("tensor ", name, " has ", entry.offsets->size(), " data_offsets, wanted 2");
  if (entry.begin() > entry.end())
    source.damaged("tensor ", name, ": its data_offsets ", entry.begin(), " to ", entry.end(), " run backwards");
  const uint64_t bytes = entry.end() - entry.begin();
  if (bytes != elements * entry.type->bytes) {
    source.damaged("tensor ", name, ": ", *entry.dtype, entry.extents, " needs ", elements * entry.type->bytes,
                   " bytes, but its data_offsets span ", bytes);
  }
}

// Tensors in file order; together they must cover the data exactly.
void check_layout(std::vector<Entry>& entries, uint64_t data_bytes, const Source& source) {
  for (Entry& entry : entries) resolve(entry, source);
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.offsets < b.offsets; });
  uint64_t expected = 0;
  for (const Entry& entry : entries) {
    if (entry.begin() != expected) {
      source.damaged("tensor ", shown(entry.name), " begins at byte ", entry.begin(), " of the data, ",
                     entry.begin() < expected ? "inside the tensor before it, which ends at "
                                              : "leaving a hole after the tensor before it, which ends at ",
                     expected);
    }
    expected = entry.end();
  }
  if (expected != data_bytes)
    source.damaged("its tensors cover ", expected, " bytes of data, but the file holds ", data_bytes);
}

float half_to_float(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, exponent = (half >> 10) & 0x1fu, fraction = half & 0x3ffu;
  if (exponent == 0) return std::copysign(static_cast<float>(fraction) * 0x1p-24f, std::bit_cast<float>(sign));
  const uint32_t wide = exponent == 0x1f ? 0xffu : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

class Reader {
 public:
  explicit Reader(const std::filesystem::path& path) : source_(path) {
    std::error_code error;
    if (!std::filesystem::exists(path, error)) source_.refused("there is no such file; check the path");
    if (!std::filesystem::is_regular_file(path, error)) source_.refused("this is not a file; check the path");
    size_ = std::filesystem::file_size(path, error);
    stream_.open(path, std::ios::binary);
    if (error || !stream_) source_.refused("the file cannot be opened; check its permissions");
  }

  SafeTensors read() {
    Header header = read_header();
    SafeTensors content;
    content.metadata = std::move(header.metadata);
    for (const Entry& entry : header.entries) content.tensors.emplace(entry.name, read_tensor(entry));
    return content;
  }

 private:
  Header read_header() {
    if (size_ < kLengthBytes) source_.damaged("the file has ", size_, " bytes, too few for a header");
    uint64_t length = 0;
    read_bytes(&length, kLengthBytes);
    if (length > kMaxHeader) {
      source_.damaged("the header claims ", length, " bytes, over the format's limit of ", kMaxHeader,
                      ", so this may not be a safetensors file");
    }
    if (length > size_ - kLengthBytes)
      source_.damaged("the header claims ", length, " bytes, but only ", size_ - kLengthBytes, " follow");
    std::string text(length, '\0');
    read_bytes(text.data(), length);
    if (!text.starts_with('{')) source_.damaged("the header does not begin with '{'");
    // The JSON library takes a zero byte for the end of the text.
    if (text.find('\0') != std::string::npos) source_.damaged("the header holds a zero byte");

    HeaderReader events(source_);
    Json::sax_parse(text, &events);
    Header header = events.take();
    check_layout(header.entries, size_ - kLengthBytes - length, source_);
    return header;
  }

  Tensor read_tensor(const Entry& entry) {
    Tensor tensor = Tensor::empty(entry.extents, entry.type->dtype);
    if (entry.type->bytes != size_of(entry.type->dtype)) {
      std::vector<uint16_t> halves(static_cast<size_t>(tensor.elements()));
      read_bytes(halves.data(), halves.size() * sizeof(uint16_t));
      std::transform(halves.begin(), halves.end(), tensor.data<float>(), half_to_float);
      return tensor;
    }
    read_bytes(tensor.raw(), tensor.bytes());
    if (tensor.dtype() == DType::boolean) {
      const auto* bytes = static_cast<const unsigned char*>(tensor.raw());
      if (std::any_of(bytes, bytes + tensor.bytes(), [](unsigned char byte) { return byte > 1; }))
        source_.damaged("tensor ", shown(entry.name), " is BOOL but holds bytes other than 0 and 1");
    }
    return tensor;
  }

  void read_bytes(void* target, uint64_t count) {
    stream_.read(static_cast<char*>(target), static_cast<std::streamsize>(count));
    if (static_cast<uint64_t>(stream_.gcount()) != count) source_.damaged("the file ended while it was read");
  }

  Source source_;
  std::ifstream stream_;
  uint64_t size_ = 0;
};

}  // namespace

SafeTensors read_safetensors(const std::filesystem::path& path) { return Reader(path).read(); }

}  // namespace monoid
